//! Answers that were read once and hold until the next commit, whatever it changes: nothing has to be told that they are
//! void, so nothing can forget to.

use std::collections::HashMap;
use std::sync::RwLock;

use crate::kernel::ids::MemberId;

/// Answers kept; when there are more, they begin anew.
const ANSWERS_MAX: usize = 4_096;

/// A member's answer, as JSON, with its version.
pub type Answer = (String, i64);

/// The answers of one moment.
#[derive(Default)]
pub struct ReadCache(RwLock<(u64, HashMap<MemberId, Answer>)>);

impl ReadCache {
    /// The answer, if it was read at this moment: `moment` counts commits.
    pub fn find(&self, moment: u64, member: MemberId) -> Option<Answer> {
        let kept = self.0.read().ok()?;
        (kept.0 == moment).then(|| kept.1.get(&member).cloned()).flatten()
    }

    /// Keeps an answer that was read at this moment or later.
    pub fn put(&self, moment: u64, member: MemberId, answer: Answer) {
        let Ok(mut kept) = self.0.write() else { return };
        if kept.0 != moment || kept.1.len() >= ANSWERS_MAX {
            // An older moment than the kept one must not come back.
            if moment < kept.0 {
                return;
            }
            *kept = (moment, HashMap::new());
        }
        kept.1.insert(member, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_moment_only() {
        let (kept, kim) = (ReadCache::default(), MemberId::new());
        kept.put(3, kim, ("old".into(), 1));
        assert_eq!(kept.find(3, kim), Some(("old".into(), 1)));
        assert_eq!((kept.find(2, kim), kept.find(4, kim), kept.find(3, MemberId::new())), (None, None, None));
        kept.put(4, kim, ("new".into(), 2));
        kept.put(3, kim, ("late".into(), 1));
        assert_eq!((kept.find(3, kim), kept.find(4, kim)), (None, Some(("new".into(), 2))));
    }
}
