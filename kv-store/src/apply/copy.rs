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

use super::{Applying, Draft};
use crate::outcome::Outcome;

impl Applying<'_> {
    pub(super) fn copy(&mut self, from: &[u8], to: &[u8], if_absent: bool, remove_source: bool) -> Outcome {
        let Some(source) = self.live(from) else { return Outcome::NoSource };
        let target = self.live(to);
        if if_absent && target.is_some() {
            return Outcome::NotDone;
        }
        if from == to {
            return Outcome::Done;
        }
        let draft = Draft::over(target, source.value.to_vec()).with_deadline(source.deadline_ms);
        // The source makes room for the target, so a rename to a key that is not longer always fits.
        let freed = if remove_source { self.stored_bytes(from) } else { 0 };
        if !self.has_memory_for(to, draft.value.len(), freed) {
            return Outcome::OutOfMemory;
        }
        if remove_source {
            self.remove(from);
        }
        self.write(to, draft);
        Outcome::Done
    }
}
