//! What fuzzing has found stays so.

use std::fs;
use std::path::Path;

use predictgate_fuzz::TARGETS;

#[test]
fn every_kept_input_holds_for_its_target() {
    for (name, run) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 20, "the corpus of {name} is gone: {} files", files.len());
        for file in files {
            let data = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| run(&data)).is_err() {
                panic!("{name} does not hold for {}", file.display());
            }
        }
    }
}

#[test]
fn the_corpora_stay_small() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files =
        fs::read_dir(corpus).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 300_000, "{bytes} bytes; minimise them");
}
