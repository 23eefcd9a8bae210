//! The queue of the decision log's writer.
//!
//! **Invariant.** No organization displaces the decisions of another one with fewer. If the queue is full, the
//! organization with most decisions in it loses its newest one, or the one that is being added.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Message;
use crate::kernel::ids::OrganizationId;

/// The organization of a decision; `None` for decisions about the site.
type Owner = Option<OrganizationId>;

/// Messages to the writer, in the order of their arrival.
pub(super) struct Queue<T> {
    decisions_max: u64,
    waiting: Mutex<Waiting<T>>,
    /// Notified when a message is added.
    added: Condvar,
}

struct Waiting<T> {
    messages: BTreeMap<u64, Message<T>>,
    next: u64,
    /// Decisions among the messages.
    decisions: u64,
    /// Ids of the decisions by owner.
    by_owner: HashMap<Owner, VecDeque<u64>>,
    /// Number of decisions of each owner, largest last.
    sizes: BTreeSet<(usize, Owner)>,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(decisions_max: u64) -> Self {
        let waiting = Waiting {
            messages: BTreeMap::new(),
            next: 0,
            decisions: 0,
            by_owner: HashMap::new(),
            sizes: BTreeSet::new(),
            is_closed: false,
        };
        Self { decisions_max, waiting: Mutex::new(waiting), added: Condvar::new() }
    }

    /// Adds a decision. If one had to be dropped, which can be this one, returns the owner of the dropped one.
    pub(super) fn put(&self, owner: Owner, decision: T) -> Option<Owner> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Some(owner);
        }
        let mut lost = None;
        if waiting.decisions >= self.decisions_max {
            let own = waiting.by_owner.get(&owner).map_or(0, VecDeque::len);
            let Some((_, largest)) = waiting.sizes.last().copied().filter(|(count, _)| *count > own + 1) else {
                return Some(owner);
            };
            waiting.drop_newest(largest);
            lost = Some(largest);
        }
        let id = waiting.push(Message::Put(owner, decision));
        waiting.decisions += 1;
        waiting.change(owner, |ids| ids.push_back(id));
        self.added.notify_one();
        lost
    }

    /// Adds a message that is not a decision. It is dropped if the queue is closed.
    pub(super) fn send(&self, message: Message<T>) {
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.push(message);
            self.added.notify_one();
        }
    }

    /// Waits for a message; returns whether it is a decision.
    pub(super) fn wait(&self) -> bool {
        let mut waiting = self.lock();
        loop {
            if let Some((_, message)) = waiting.messages.first_key_value() {
                return matches!(message, Message::Put(..));
            }
            waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes up to `count` messages.
    pub(super) fn take(&self, count: usize) -> Vec<Message<T>> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some((_, message)) = waiting.messages.pop_first()
        {
            if let Message::Put(owner, _) = &message {
                waiting.decisions -= 1;
                waiting.change(*owner, |ids| {
                    ids.pop_front();
                });
            }
            taken.push(message);
        }
        taken
    }

    /// Closes the queue, because the writer has ended, and drops all messages.
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

    fn drop_newest(&mut self, owner: Owner) {
        let mut newest = None;
        self.change(owner, |ids| newest = ids.pop_back());
        if newest.is_some_and(|id| self.messages.remove(&id).is_some()) {
            self.decisions -= 1;
        }
    }

    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut VecDeque<u64>)) {
        let ids = self.by_owner.entry(owner).or_default();
        self.sizes.remove(&(ids.len(), owner));
        change(ids);
        let count = ids.len();
        if count == 0 {
            self.by_owner.remove(&owner);
        } else {
            self.sizes.insert((count, owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Owner = Some(OrganizationId(uuid::Uuid::nil()));
    const BOLT: Owner = Some(OrganizationId(uuid::Uuid::max()));

    fn numbers(queue: &Queue<u8>) -> Vec<u8> {
        let number = |message| if let Message::Put(_, n) = message { Some(n) } else { None };
        queue.take(100).into_iter().filter_map(number).collect()
    }

    #[test]
    fn the_organization_with_most_decisions_in_a_full_queue_loses_one() {
        let queue = Queue::new(4);
        assert_eq!((0..4).filter_map(|n| queue.put(ACME, n)).count(), 0, "at the limit");
        assert_eq!(queue.put(ACME, 4), Some(ACME), "one past it");
        assert_eq!((queue.put(BOLT, 5), queue.put(None, 6)), (Some(ACME), Some(ACME)));
        // An organization that has as many as the others displaces none.
        assert_eq!((queue.put(BOLT, 7), queue.put(ACME, 8)), (Some(BOLT), Some(ACME)));
        assert_eq!(numbers(&queue), [0, 1, 5, 6], "in the order of their arrival");
        let waiting = queue.lock();
        assert!(waiting.decisions == 0 && waiting.by_owner.is_empty() && waiting.sizes.is_empty());
    }

    #[test]
    fn other_messages_stay_in_order_behind_decisions() {
        let queue = Queue::new(1);
        queue.put(ACME, 1);
        queue.send(Message::End);
        assert_eq!(queue.put(BOLT, 2), Some(BOLT));
        assert!(queue.wait() && matches!(queue.take(1)[..], [Message::Put(..)]));
        assert!(!queue.wait() && matches!(queue.take(9)[..], [Message::End]));
        queue.close();
        assert_eq!(queue.put(ACME, 3), Some(ACME));
    }
}
