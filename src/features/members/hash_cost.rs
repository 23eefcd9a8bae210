//! The cost of the stored password hashes, and the remaining work after checking one of them so that every sign-in
//! costs the same: the time must not reveal whose hash was imported, or whether a member has one.
//!
//! The cost is measured in rounds of bcrypt, blocks of argon2 (memory times passes), and rounds of each simple hash.
//! The floor is the maximum of each over all stored hashes, and every sign-in does all of this work.

use super::legacy_hash::{Kind, SHA_CRYPT_ROUNDS, phpass_rounds};

/// The cost of one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// 2^cost rounds.
    Bcrypt {
        cost: u32,
    },
    Argon2 {
        memory_kib: u32,
        passes: u32,
    },
    Rounds {
        kind: Kind,
        rounds: u64,
    },
}

/// The prefixes of a bcrypt hash; those that are not empty mark hashes of a digest of the password.
const BEFORE_BCRYPT: [&str; 3] = ["", "$wp", "bcrypt_sha256$"];

/// Returns the position of the bcrypt hash in a stored hash, if it is one.
fn bcrypt_at(hash: &str) -> Option<usize> {
    let begins = |mark: &&&str| hash.strip_prefix(**mark).is_some_and(|rest| rest.starts_with("$2"));
    BEFORE_BCRYPT.iter().find(begins).map(|mark| mark.len())
}

/// The most cost of an imported hash, so that a sign-in takes no more than about 250 ms for each algorithm: the
/// defaults of PHP and Laravel for bcrypt, and of PHP for argon2 (64 MiB, four passes). For the simple hashes see
/// `Kind::rounds_max`.
pub const BCRYPT_COST_MAX: u32 = 12;
pub const ARGON2_BLOCKS_MAX: u64 = 262_144;

impl Cost {
    /// Whether the cost is within the limits, so that every sign-in can do this work.
    pub fn is_affordable(self) -> bool {
        match self {
            Self::Bcrypt { cost } => cost <= BCRYPT_COST_MAX,
            Self::Argon2 { .. } => self.blocks() <= ARGON2_BLOCKS_MAX,
            Self::Rounds { kind, rounds } => rounds <= kind.rounds_max(),
        }
    }

    /// Parses the cost from the beginning of a stored hash.
    pub fn of(hash: &str) -> Option<Self> {
        if let Some(at) = bcrypt_at(hash) {
            return Some(Self::Bcrypt { cost: hash.get(at + 4..at + 6)?.parse().ok()? });
        }
        if let Some(rest) = hash.strip_prefix("pbkdf2_sha256$") {
            return Some(Self::Rounds { kind: Kind::Pbkdf2, rounds: rest.split('$').next()?.parse().ok()? });
        }
        if hash.starts_with("$P$") || hash.starts_with("$H$") {
            return Some(Self::Rounds { kind: Kind::Phpass, rounds: phpass_rounds(hash.as_bytes().get(3).copied()?)? });
        }
        for (mark, kind) in [("$5$", Kind::Sha256Crypt), ("$6$", Kind::Sha512Crypt)] {
            let Some(rest) = hash.strip_prefix(mark) else { continue };
            let rounds = rest.strip_prefix("rounds=").and_then(|rest| rest.split('$').next()?.parse().ok());
            return Some(Self::Rounds { kind, rounds: rounds.unwrap_or(SHA_CRYPT_ROUNDS) });
        }
        let parameters = hash.split('$').find(|part| part.starts_with("m="))?;
        let number = |name: &str| parameters.split(',').find_map(|one| one.strip_prefix(name)?.parse().ok());
        Some(Self::Argon2 { memory_kib: number("m=")?, passes: number("t=")? })
    }

    fn blocks(self) -> u64 {
        match self {
            Self::Bcrypt { .. } | Self::Rounds { .. } => 0,
            Self::Argon2 { memory_kib, passes } => u64::from(memory_kib) * u64::from(passes),
        }
    }
}

/// Returns the beginning of a hash that contains its cost parameters, without salt and digest.
pub fn beginning(hash: &str) -> Option<&str> {
    const BCRYPT: usize = "$2b$10$".len();
    if let Some(at) = bcrypt_at(hash) {
        return hash.get(..at + BCRYPT);
    }
    let up_to_sign = |from: usize| hash.get(..=from + hash.get(from..)?.find('$')?);
    match hash {
        _ if hash.starts_with("pbkdf2_sha256$") => return up_to_sign("pbkdf2_sha256$".len()),
        _ if hash.starts_with("$P$") || hash.starts_with("$H$") => return hash.get(..4),
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => {
            return if hash[3..].starts_with("rounds=") { up_to_sign(3) } else { hash.get(..3) };
        }
        _ => {}
    }
    let lanes = hash.find(",p=")?;
    hash.get(..=lanes + hash.get(lanes..)?.find('$')?)
}

/// The least memory of argon2, in KiB.
const ARGON2_MEMORY_MIN: u64 = 8;

/// The work that every sign-in does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floor {
    bcrypt: Option<u32>,
    argon2: Option<(u32, u32)>,
    /// In the order of `Kind::ALL`.
    rounds: [u64; Kind::ALL.len()],
}

impl Floor {
    /// Returns the floor over the stored hashes and a hash with the current settings. A hash above the limits, stored
    /// before they existed, does not count: only its member's sign-in takes longer, until the hash is replaced at that
    /// sign-in.
    pub fn of_site(stored: impl IntoIterator<Item = Cost>, today: Cost) -> Self {
        Self::over(stored.into_iter().filter(|cost| cost.is_affordable()).chain([today]))
    }

    fn over(costs: impl IntoIterator<Item = Cost>) -> Self {
        let mut floor = Self::default();
        for cost in costs {
            match cost {
                Cost::Bcrypt { cost } => floor.bcrypt = floor.bcrypt.max(Some(cost)),
                Cost::Argon2 { memory_kib, passes } if cost.blocks() > floor.blocks() => {
                    floor.argon2 = Some((memory_kib, passes));
                }
                Cost::Argon2 { .. } => {}
                Cost::Rounds { kind, rounds } => {
                    for (most, _) in floor.rounds.iter_mut().zip(Kind::ALL).filter(|(_, known)| *known == kind) {
                        *most = rounds.max(*most);
                    }
                }
            }
        }
        floor
    }

    fn blocks(self) -> u64 {
        self.argon2.map_or(0, |(memory_kib, passes)| Cost::Argon2 { memory_kib, passes }.blocks())
    }

    /// Returns the remaining work after checking a hash with the cost `done`, or no hash.
    pub fn rest(self, done: Option<Cost>) -> Vec<Cost> {
        let mut rest = Vec::new();
        match (self.bcrypt, done) {
            // 2^c + 2^c + 2^(c+1) + … + 2^(most-1) is 2^most.
            (Some(most), Some(Cost::Bcrypt { cost })) => rest.extend((cost..most).map(|cost| Cost::Bcrypt { cost })),
            (Some(most), _) => rest.push(Cost::Bcrypt { cost: most }),
            (None, _) => {}
        }
        if let Some((memory_kib, _)) = self.argon2 {
            let left = self.blocks().saturating_sub(done.map_or(0, Cost::blocks));
            let (passes, blocks) = (left / u64::from(memory_kib.max(1)), left % u64::from(memory_kib.max(1)));
            let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            if passes > 0 {
                rest.push(Cost::Argon2 { memory_kib, passes: number(passes) });
            }
            if blocks >= ARGON2_MEMORY_MIN {
                rest.push(Cost::Argon2 { memory_kib: number(blocks), passes: 1 });
            }
        }
        for (most, kind) in self.rounds.into_iter().zip(Kind::ALL) {
            let own = match done {
                Some(Cost::Rounds { kind: own, rounds }) if own == kind => rounds,
                _ => 0,
            };
            if most > own {
                rest.push(Cost::Rounds { kind, rounds: most - own });
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";

    #[test]
    fn the_beginning_of_a_hash_contains_its_cost() {
        for (begins, cost) in [
            ("$2y$12$", Cost::Bcrypt { cost: 12 }),
            ("$argon2id$v=19$m=19456,t=2,p=1$", Cost::Argon2 { memory_kib: 19_456, passes: 2 }),
            ("$argon2i$m=64,t=10,p=16$", Cost::Argon2 { memory_kib: 64, passes: 10 }),
            ("$wp$2y$10$", Cost::Bcrypt { cost: 10 }),
            ("bcrypt_sha256$$2b$11$", Cost::Bcrypt { cost: 11 }),
            ("pbkdf2_sha256$600000$", Cost::Rounds { kind: Kind::Pbkdf2, rounds: 600_000 }),
            ("$P$B", Cost::Rounds { kind: Kind::Phpass, rounds: 8_192 }),
            ("$5$rounds=1000$", Cost::Rounds { kind: Kind::Sha256Crypt, rounds: 1_000 }),
            ("$6$", Cost::Rounds { kind: Kind::Sha512Crypt, rounds: SHA_CRYPT_ROUNDS }),
        ] {
            let hash = format!("{begins}{TAIL}");
            assert_eq!((beginning(&hash), Cost::of(&hash), Cost::of(begins)), (Some(begins), Some(cost), Some(cost)));
        }
        for none in ["", "$", "$2", "$2b$", "$argon2id$v=19$", "$argon2id$v=19$m=1,t=1,p=1", "plain"] {
            assert_eq!(beginning(none), None, "{none}");
        }
    }

    /// Returns the rounds of bcrypt and the blocks of argon2.
    fn work(costs: impl IntoIterator<Item = Cost>) -> (u64, u64) {
        costs.into_iter().fold((0, 0), |(rounds, blocks), cost| match cost {
            Cost::Bcrypt { cost } => (rounds + (1 << cost), blocks),
            Cost::Argon2 { .. } => (rounds, blocks + cost.blocks()),
            Cost::Rounds { .. } => (rounds, blocks),
        })
    }

    #[test]
    fn rounds_are_completed_for_each_kind() {
        let of = |kind, rounds| Cost::Rounds { kind, rounds };
        let stored =
            [of(Kind::Pbkdf2, 1_000), of(Kind::Pbkdf2, 600), of(Kind::Phpass, 8_192), Cost::Bcrypt { cost: 4 }];
        let floor = Floor::over(stored);
        let all = [Cost::Bcrypt { cost: 4 }, of(Kind::Pbkdf2, 1_000), of(Kind::Phpass, 8_192)];
        assert_eq!(floor.rest(None), all);
        assert_eq!(floor.rest(Some(of(Kind::Pbkdf2, 600))), [all[0], of(Kind::Pbkdf2, 400), all[2]]);
        assert_eq!(floor.rest(Some(of(Kind::Phpass, 8_192))), all[..2]);
        // A bcrypt hash of the full cost is not computed again.
        assert_eq!(floor.rest(Some(Cost::Bcrypt { cost: 4 })), all[1..]);
    }

    #[test]
    fn stored_hashes_above_the_limits_do_not_raise_the_floor() {
        let bcrypt = |cost| Cost::Bcrypt { cost };
        let argon2 = |memory_kib, passes| Cost::Argon2 { memory_kib, passes };
        let today = argon2(19_456, 2);
        let floor_work = |stored: &[Cost], today| work(Floor::of_site(stored.iter().copied(), today).rest(None));
        for (stored, expected) in [
            (bcrypt(BCRYPT_COST_MAX), (1 << BCRYPT_COST_MAX, 38_912)),
            (bcrypt(BCRYPT_COST_MAX + 1), (0, 38_912)),
            (bcrypt(16), (0, 38_912)),
            (Cost::Rounds { kind: Kind::Pbkdf2, rounds: 3_000_000 }, (0, 38_912)),
            (argon2(65_536, 4), (0, ARGON2_BLOCKS_MAX)),
            (argon2(65_537, 4), (0, 38_912)),
            (argon2(262_144, 10), (0, 38_912)),
        ] {
            assert_eq!(floor_work(&[stored], today), expected, "{stored:?}");
        }
        // The current settings count without a limit.
        assert_eq!(floor_work(&[], argon2(262_144, 2)), (0, 2 * ARGON2_BLOCKS_MAX));
    }

    #[test]
    fn every_sign_in_does_the_same_work() {
        let bcrypt = |cost| Cost::Bcrypt { cost };
        let argon2 = |memory_kib, passes| Cost::Argon2 { memory_kib, passes };
        let today = argon2(19_456, 2);
        for stored in [
            vec![today],
            vec![today, bcrypt(10)],
            vec![today, bcrypt(4), bcrypt(10), bcrypt(16)],
            vec![today, argon2(65_536, 4), argon2(8, 1), argon2(4_096, 10)],
            vec![today, argon2(65_536, 3), argon2(262_144, 1), bcrypt(5), bcrypt(12)],
        ] {
            let floor = Floor::over(stored.iter().copied());
            let without_hash = work(floor.rest(None));
            assert_eq!(without_hash.0, stored.iter().map(|cost| work([*cost]).0).max().unwrap_or(0));
            assert_eq!(without_hash.1, stored.iter().map(|cost| work([*cost]).1).max().unwrap_or(0));
            for own in &stored {
                let (rounds, blocks) = work(floor.rest(Some(*own)).into_iter().chain([*own]));
                assert_eq!(rounds, without_hash.0, "{own:?} {stored:?}");
                assert!(blocks <= without_hash.1 && without_hash.1 - blocks < ARGON2_MEMORY_MIN, "{own:?} {stored:?}");
            }
        }
    }
}
