//! Shared data over workers.

use crate::module::process;

/// Writes the key with this token on every tick, and logs the status.
fn writer(token: u32) -> String {
    format!(
        r#"(func (export "write") (result i32)
            (call $set_shared (i32.const 96) (i32.const 3) (i32.const 80) (i32.const 3)
                (i32.const {})))
           (func (export "token") (result i32)
            (drop (call $get_shared (i32.const 96) (i32.const 3) (i32.const 20) (i32.const 24) (i32.const 28)))
            (i32.load (i32.const 28)))"#,
        token.cast_signed()
    )
}

const OK: Option<u32> = Some(0);
const CAS_MISMATCH: Option<u32> = Some(8);

#[test]
fn a_token_that_was_never_issued_creates_and_never_overwrites() {
    let process = process(&writer(u32::MAX));
    let (one, other) = (process.worker("").unwrap(), process.worker("").unwrap());
    assert_eq!(one.call("write", &[]), OK);
    assert_eq!(other.call("write", &[]), CAS_MISMATCH);
    assert_eq!(one.call("write", &[]), CAS_MISMATCH);
    assert_eq!(process.shared_value("key").as_deref(), Some(&b"yes"[..]));
}

#[test]
fn token_zero_overwrites_and_each_write_has_a_new_token() {
    let process = process(&writer(0));
    let (one, other) = (process.worker("").unwrap(), process.worker("").unwrap());
    let tokens = [&one, &other, &one].map(|worker| {
        assert_eq!(worker.call("write", &[]), OK);
        worker.call("token", &[]).unwrap()
    });
    assert_eq!(tokens, [1, 2, 3]);
}

#[test]
fn a_scripted_conflict_loses_to_a_rival_as_often_as_asked() {
    let process = process(&writer(u32::MAX));
    let worker = process.worker("").unwrap();
    process.conflict(2);
    assert_eq!([0; 3].map(|_| worker.call("write", &[])), [CAS_MISMATCH, CAS_MISMATCH, OK]);
}
