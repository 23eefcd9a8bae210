//! SQL of remembered devices.

use crate::features::sessions::trusted_devices::TrustedDevice;
use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp, TrustedDeviceId};
use crate::kernel::secret::Hash;

const FIND_DEVICE: &str = "
    select hash, created_at, expires_at
    from trusted_devices
    where id = :id and member_id = :member_id";

/// Returns the hash of a member's device, and when it was remembered and expires.
pub fn find(r: &Reader<'_>, member: MemberId, id: TrustedDeviceId) -> Result<Option<(Hash, Timestamp, Timestamp)>> {
    r.find(FIND_DEVICE, &[(":id", &id), (":member_id", &member)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

const LIST_DEVICES: &str = "
    select id, agent, created_at, last_used_at, expires_at
    from trusted_devices
    where member_id = :member_id and expires_at > :now
    order by last_used_at desc, id desc";

/// Lists a member's devices that have not expired, most recently used first. Their number is limited.
pub fn list(r: &Reader<'_>, member: MemberId, now: Timestamp) -> Result<Vec<TrustedDevice>> {
    r.all(LIST_DEVICES, &[(":member_id", &member), (":now", &now)], |row| {
        Ok(TrustedDevice {
            id: row.get(0)?,
            agent: row.get(1)?,
            created_at: row.get(2)?,
            last_used_at: row.get(3)?,
            expires_at: row.get(4)?,
        })
    })
}

const DELETE_OLDEST: &str = "
    delete from trusted_devices
    where id in (select id from trusted_devices
                 where member_id = :member_id
                 order by last_used_at desc, id desc
                 limit -1 offset :kept)";
const INSERT_DEVICE: &str = "
    insert into trusted_devices (id, member_id, hash, agent, created_at, last_used_at, expires_at)
    values (:id, :member_id, :hash, :agent, :now, :now, :expires_at)";

/// Inserts a device. The member's least recently used devices beyond `devices_max` are deleted.
pub fn insert(
    w: &Writer<'_>,
    (member, id, hash): (MemberId, TrustedDeviceId, &Hash),
    agent: &str,
    expires_at: Timestamp,
    devices_max: u64,
) -> Result<()> {
    let kept = i64::try_from(devices_max.saturating_sub(1)).unwrap_or(i64::MAX);
    w.execute(DELETE_OLDEST, &[(":member_id", &member), (":kept", &kept)])?;
    w.execute(
        INSERT_DEVICE,
        &[
            (":id", &id),
            (":member_id", &member),
            (":hash", hash),
            (":agent", &agent),
            (":now", &w.now()),
            (":expires_at", &expires_at),
        ],
    )
    .map(drop)
}

const TOUCH_DEVICE: &str = "update trusted_devices set last_used_at = :now where id = :id";

/// Records a use of the device.
pub fn touch(w: &Writer<'_>, id: TrustedDeviceId) -> Result<()> {
    w.execute(TOUCH_DEVICE, &[(":now", &w.now()), (":id", &id)]).map(drop)
}

const DELETE_DEVICE: &str = "delete from trusted_devices where id = :id and member_id = :member_id";

/// Deletes a device. Returns whether the member had it.
pub fn delete(w: &Writer<'_>, member: MemberId, id: TrustedDeviceId) -> Result<bool> {
    w.execute(DELETE_DEVICE, &[(":id", &id), (":member_id", &member)]).map(|rows| rows == 1)
}

const DELETE_DEVICES_OF: &str = "delete from trusted_devices where member_id = :member_id";

/// Deletes all devices of a member and returns their number.
pub fn delete_all(w: &Writer<'_>, member: MemberId) -> Result<usize> {
    w.execute(DELETE_DEVICES_OF, &[(":member_id", &member)])
}

const DELETE_EXPIRED_DEVICES: &str = "
    delete from trusted_devices
    where id in (select id from trusted_devices where expires_at <= :now limit :most)";

/// Deletes at most `most` expired devices and returns their number.
pub fn delete_expired(w: &Writer<'_>, most: usize) -> Result<usize> {
    w.execute(DELETE_EXPIRED_DEVICES, &[(":now", &w.now()), (":most", &sql::limit(most))])
}
