//! Makes a message on which the readings differ as short as leaving bytes out can.

use anyhow::Result;

use crate::dice::Dice;
use crate::judge::compare;
use crate::message::Message;
use crate::oracle::Oracle;

/// # Errors
///
/// Fails when the oracle does.
pub fn minimise(message: &Message, oracle: &mut Oracle) -> Result<Message> {
    let mut shortest = message.clone();
    let mut step = shortest.bytes.len().max(1);
    while step > 0 {
        let candidates: Vec<_> = (0..shortest.bytes.len())
            .map(|from| {
                let mut candidate = shortest.clone();
                candidate.bytes.drain(from..candidate.bytes.len().min(from + step));
                candidate
            })
            .collect();
        let read = oracle.read(&candidates)?;
        let differs = |(message, oracle): &(Message, Option<_>)| {
            compare(message, oracle.as_ref(), &mut Dice::of_message(0, 0)).is_err()
        };
        match candidates.into_iter().zip(read).find(differs) {
            Some((shorter, _)) => shortest = shorter,
            None => step /= 2,
        }
    }
    Ok(shortest)
}
