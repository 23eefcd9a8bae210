//! What waits for the decision log's writer.
//!
//! **Invariant.** No organization takes another's place: where the queue is full, the one that has most in it loses its
//! newest decision, or the one that comes in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Message;
use crate::kernel::ids::OrganizationId;

/// Of whom a decision is; none for questions about the site.
type Of = Option<OrganizationId>;

/// Messages to the writer, in the order in which they came.
pub(super) struct Queue<T> {
    decisions_max: u64,
    waiting: Mutex<Waiting<T>>,
    came: Condvar,
}

struct Waiting<T> {
    messages: BTreeMap<u64, Message<T>>,
    next: u64,
    /// Decisions among the messages.
    decisions: u64,
    of: HashMap<Of, VecDeque<u64>>,
    /// How many each has, the most last.
    sizes: BTreeSet<(usize, Of)>,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(decisions_max: u64) -> Self {
        let waiting = Waiting {
            messages: BTreeMap::new(),
            next: 0,
            decisions: 0,
            of: HashMap::new(),
            sizes: BTreeSet::new(),
            is_closed: false,
        };
        Self { decisions_max, waiting: Mutex::new(waiting), came: Condvar::new() }
    }

    /// Adds a decision. Where one is lost for it, perhaps itself, answers whose that is.
    pub(super) fn put(&self, of: Of, decision: T) -> Option<Of> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Some(of);
        }
        let mut lost = None;
        if waiting.decisions >= self.decisions_max {
            let own = waiting.of.get(&of).map_or(0, VecDeque::len);
            let Some((_, most)) = waiting.sizes.last().copied().filter(|(count, _)| *count > own + 1) else {
                return Some(of);
            };
            waiting.drop_newest(most);
            lost = Some(most);
        }
        let id = waiting.push(Message::Put(of, decision));
        waiting.decisions += 1;
        waiting.change(of, |ids| ids.push_back(id));
        self.came.notify_one();
        lost
    }

    /// Adds what is not a decision. It is let go of where nobody reads any more.
    pub(super) fn tell(&self, message: Message<T>) {
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.push(message);
            self.came.notify_one();
        }
    }

    /// Waits for a message; answers whether it is a decision.
    pub(super) fn wait(&self) -> bool {
        let mut waiting = self.lock();
        loop {
            if let Some((_, message)) = waiting.messages.first_key_value() {
                return matches!(message, Message::Put(..));
            }
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes out so many messages at most.
    pub(super) fn take(&self, count: usize) -> Vec<Message<T>> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some((_, message)) = waiting.messages.pop_first()
        {
            if let Message::Put(of, _) = &message {
                waiting.decisions -= 1;
                waiting.change(*of, |ids| {
                    ids.pop_front();
                });
            }
            taken.push(message);
        }
        taken
    }

    /// Nobody reads any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.messages.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, message: Message<T>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.messages.insert(id, message);
        id
    }

    fn drop_newest(&mut self, of: Of) {
        let mut newest = None;
        self.change(of, |ids| newest = ids.pop_back());
        if newest.is_some_and(|id| self.messages.remove(&id).is_some()) {
            self.decisions -= 1;
        }
    }

    fn change(&mut self, of: Of, change: impl FnOnce(&mut VecDeque<u64>)) {
        let ids = self.of.entry(of).or_default();
        self.sizes.remove(&(ids.len(), of));
        change(ids);
        let count = ids.len();
        if count == 0 {
            self.of.remove(&of);
        } else {
            self.sizes.insert((count, of));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Of = Some(OrganizationId(uuid::Uuid::nil()));
    const BOLT: Of = Some(OrganizationId(uuid::Uuid::max()));

    fn numbers(queue: &Queue<u8>) -> Vec<u8> {
        let number = |message| if let Message::Put(_, n) = message { Some(n) } else { None };
        queue.take(100).into_iter().filter_map(number).collect()
    }

    #[test]
    fn who_has_most_in_a_full_queue_loses_a_decision() {
        let queue = Queue::new(4);
        assert_eq!((0..4).filter_map(|n| queue.put(ACME, n)).count(), 0, "at the limit");
        assert_eq!(queue.put(ACME, 4), Some(ACME), "one past it");
        assert_eq!((queue.put(BOLT, 5), queue.put(None, 6)), (Some(ACME), Some(ACME)));
        // Who has as many as the others waits for space.
        assert_eq!((queue.put(BOLT, 7), queue.put(ACME, 8)), (Some(BOLT), Some(ACME)));
        assert_eq!(numbers(&queue), [0, 1, 5, 6], "in the order in which they came");
        let waiting = queue.lock();
        assert!(waiting.decisions == 0 && waiting.of.is_empty() && waiting.sizes.is_empty());
    }

    #[test]
    fn what_is_told_has_its_place_behind_what_was_put() {
        let queue = Queue::new(1);
        queue.put(ACME, 1);
        queue.tell(Message::End);
        assert_eq!(queue.put(BOLT, 2), Some(BOLT));
        assert!(queue.wait() && matches!(queue.take(1)[..], [Message::Put(..)]));
        assert!(!queue.wait() && matches!(queue.take(9)[..], [Message::End]));
        queue.close();
        assert_eq!(queue.put(ACME, 3), Some(ACME));
    }
}
