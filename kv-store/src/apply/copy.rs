//! Copies and renames.
//!
//! What is done, in this order:
//!
//! | source | same key | target | if absent | outcome | |
//! |---|---|---|---|---|---|
//! | absent | | | | `NoSource` | |
//! | present | | present | yes | `NotDone` | a key is a present target of itself |
//! | present | yes | | no | `Done` | nothing to change |
//! | present | no | | | `Done` | the target is written, then the source removed if it is to be |

use super::Applying;
use crate::outcome::Outcome;

impl Applying<'_> {
    pub(super) fn copy(&mut self, from: &[u8], to: &[u8], if_absent: bool, remove_source: bool) -> Outcome {
        let Some(source) = self.live(from) else { return Outcome::NoSource };
        if if_absent && self.live(to).is_some() {
            return Outcome::NotDone;
        }
        if from == to {
            return Outcome::Done;
        }
        let (value, deadline_ms) = (source.value.clone(), source.deadline_ms);
        // The source makes room for the target, so a rename to a key that is not longer always fits.
        let freed = if remove_source { self.stored_bytes(from) } else { 0 };
        if !self.has_memory_for(to, value.len(), freed) {
            return Outcome::OutOfMemory;
        }
        if remove_source {
            self.remove(from);
        }
        self.write(to, value, deadline_ms);
        Outcome::Done
    }
}
