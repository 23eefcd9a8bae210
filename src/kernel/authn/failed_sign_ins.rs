//! Failed sign-ins of the last month, by hour. In memory only: a restart begins anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crate::kernel::db::buckets::Buckets;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};

const HOUR_MS: i64 = 3_600_000;
/// The hours that are kept: 31 days.
const HOURS_MAX: usize = 31 * 24;
/// The most members that are counted separately in one hour, shared fairly by the organizations: one with fewer members
/// takes places of the one with the most. Failures of further members only count for the site.
const MEMBERS_MAX: usize = 256;

/// Counters of failed sign-ins.
pub struct FailedSignIns {
    since: Timestamp,
    /// The oldest first; only hours with failures.
    hours: Mutex<VecDeque<Hour>>,
}

struct Hour {
    start: Timestamp,
    all: u64,
    by_member: HashMap<MemberId, Failures>,
}

/// The failures of a member.
struct Failures {
    count: u64,
    /// One that the member belonged to at the first one.
    organization: Option<OrganizationId>,
}

impl Hour {
    /// Counts a failure of a member, if there is room.
    fn add(&mut self, member: MemberId, organization_of: impl FnOnce(MemberId) -> Option<OrganizationId>) {
        if let Some(known) = self.by_member.get_mut(&member) {
            known.count = known.count.saturating_add(1);
            return;
        }
        let organization = organization_of(member);
        if self.by_member.len() < MEMBERS_MAX || self.make_room(organization) {
            self.by_member.insert(member, Failures { count: 1, organization });
        }
    }

    /// Forgets the member with the fewest failures of the organization with the most members, unless this organization
    /// would then have more.
    fn make_room(&mut self, organization: Option<OrganizationId>) -> bool {
        let mut sizes: HashMap<Option<OrganizationId>, usize> = HashMap::new();
        self.by_member.values().for_each(|known| *sizes.entry(known.organization).or_default() += 1);
        let own = sizes.get(&organization).copied().unwrap_or_default();
        let largest = sizes.into_iter().max_by_key(|(id, size)| (*size, *id));
        let Some((largest, _)) = largest.filter(|(_, size)| own + 1 < *size) else { return false };
        let of_largest = self.by_member.iter().filter(|(_, known)| known.organization == largest);
        let fewest = of_largest.min_by_key(|(member, known)| (known.count, **member)).map(|(member, _)| *member);
        fewest.is_some_and(|member| self.by_member.remove(&member).is_some())
    }
}

impl FailedSignIns {
    pub fn new(since: Timestamp) -> Self {
        Self { since, hours: Mutex::default() }
    }

    /// Counts a failure. `member` is `None` if no member has the name, or none was given.
    pub fn record(
        &self,
        member: Option<MemberId>,
        now: Timestamp,
        organization_of: impl FnOnce(MemberId) -> Option<OrganizationId>,
    ) {
        let start = Timestamp(now.0.div_euclid(HOUR_MS).saturating_mul(HOUR_MS));
        let Ok(mut hours) = self.hours.lock() else { return };
        // A clock that was set back counts in the last hour.
        if hours.back().is_none_or(|last| last.start < start) {
            hours.push_back(Hour { start, all: 0, by_member: HashMap::new() });
            while hours.len() > HOURS_MAX || hours.front().is_some_and(|first| first.start < oldest(start)) {
                hours.pop_front();
            }
        }
        let Some(hour) = hours.back_mut() else { return };
        hour.all = hour.all.saturating_add(1);
        if let Some(member) = member {
            hour.add(member, organization_of);
        }
    }

    /// Counts failures by bucket: of the members that fit, or all if `fits` is `None`.
    pub fn count(&self, buckets: &Buckets, fits: Option<&dyn Fn(MemberId) -> bool>) -> Vec<u64> {
        let mut counts = vec![0_u64; buckets.count];
        let Ok(hours) = self.hours.lock() else { return counts };
        for hour in hours.iter() {
            let Some(count) = buckets.find(hour.start).and_then(|bucket| counts.get_mut(bucket)) else { continue };
            let of_hour = match fits {
                None => hour.all,
                Some(fits) => {
                    hour.by_member.iter().filter(|(member, _)| fits(**member)).map(|(_, known)| known.count).sum()
                }
            };
            *count = count.saturating_add(of_hour);
        }
        counts
    }

    /// Since when failures are counted.
    pub fn since(&self, now: Timestamp) -> Timestamp {
        self.since.max(oldest(Timestamp(now.0.div_euclid(HOUR_MS).saturating_mul(HOUR_MS))))
    }
}

/// The oldest hour that is kept in the hour that begins at `start`.
fn oldest(start: Timestamp) -> Timestamp {
    start.plus_ms(-HOUR_MS.saturating_mul(i64::try_from(HOURS_MAX).unwrap_or_default() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(failures: &FailedSignIns, to: i64) -> u64 {
        let buckets = Buckets::covering(Timestamp(0), Timestamp(to), HOUR_MS).expect("a period");
        failures.count(&buckets, None).iter().sum()
    }

    #[test]
    fn failures_are_counted_by_hour_and_member() {
        let failures = FailedSignIns::new(Timestamp(0));
        let (kim, lee) = (MemberId::new(), MemberId::new());
        for (member, at) in
            [(Some(kim), 0), (Some(lee), HOUR_MS - 1), (None, HOUR_MS), (Some(kim), 2 * HOUR_MS), (Some(kim), HOUR_MS)]
        {
            failures.record(member, Timestamp(at), |_| None);
        }
        let buckets = Buckets::covering(Timestamp(0), Timestamp(3 * HOUR_MS), HOUR_MS).expect("a period");
        assert_eq!(failures.count(&buckets, None), [2, 1, 2]);
        assert_eq!(failures.count(&buckets, Some(&|member| member == kim)), [1, 0, 2]);
    }

    #[test]
    fn hours_and_members_are_kept_at_their_limit_and_not_one_past_it() {
        let failures = FailedSignIns::new(Timestamp(0));
        let hours = i64::try_from(HOURS_MAX).expect("a number");
        for hour in 0..hours {
            failures.record(None, Timestamp(hour * HOUR_MS), |_| None);
        }
        assert_eq!((all(&failures, hours * HOUR_MS), failures.since(Timestamp(0)).0), (744, 0));
        failures.record(None, Timestamp(hours * HOUR_MS), |_| None);
        assert_eq!(all(&failures, (hours + 1) * HOUR_MS), 744);
        assert_eq!(failures.since(Timestamp(hours * HOUR_MS)).0, HOUR_MS);

        let failures = FailedSignIns::new(Timestamp(0));
        let counted = |failures: &FailedSignIns| {
            let buckets = Buckets::covering(Timestamp(0), Timestamp(1), HOUR_MS).expect("a period");
            (failures.count(&buckets, Some(&|_| true)), failures.count(&buckets, None))
        };
        for _ in 0..MEMBERS_MAX {
            failures.record(Some(MemberId::new()), Timestamp(0), |_| None);
        }
        assert_eq!(counted(&failures), (vec![256], vec![256]));
        failures.record(Some(MemberId::new()), Timestamp(0), |_| None);
        assert_eq!(counted(&failures), (vec![256], vec![257]));
    }

    #[test]
    fn the_members_of_one_organization_do_not_take_the_places_of_another() {
        let failures = FailedSignIns::new(Timestamp(0));
        let (acme, bolt) = (OrganizationId::new(), OrganizationId::new());
        let record = |member, organization, times: usize| {
            (0..times).for_each(|_| failures.record(Some(member), Timestamp(0), |_| Some(organization)));
        };
        let count = |members: &[MemberId]| {
            let buckets = Buckets::covering(Timestamp(0), Timestamp(1), HOUR_MS).expect("a period");
            failures.count(&buckets, Some(&|member| members.contains(&member)))[0]
        };
        let of_acme: Vec<MemberId> = (0..MEMBERS_MAX).map(|_| MemberId::new()).collect();
        of_acme.iter().for_each(|member| record(*member, acme, 2));
        let of_bolt: Vec<MemberId> = (0..=MEMBERS_MAX / 2).map(|_| MemberId::new()).collect();
        record(of_bolt[0], bolt, 3);
        assert_eq!((count(&of_bolt), count(&of_acme)), (3, 2 * 255));
        of_bolt[1..].iter().for_each(|member| record(*member, bolt, 1));
        // Half of the places, and not one more.
        assert_eq!((count(&of_bolt), count(&of_acme)), (3 + 127, 2 * 128));
        // Further members of the first one take no place back.
        record(MemberId::new(), acme, 9);
        assert_eq!((count(&of_bolt), count(&of_acme)), (3 + 127, 2 * 128));
    }
}
