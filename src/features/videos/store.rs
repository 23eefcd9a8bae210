//! SQL of videos.

use rusqlite::Row;

use super::{Filter, SortKey, Video};
use crate::kernel::db::sql::Parameters;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::Result;

const FIND_VIDEO: &str = "
    select id, path, member_id, organization_id, size, version, created_at, updated_at
    from videos
    where id = :id";

pub fn find_video(r: &Reader<'_>, id: &str) -> Result<Option<Video>> {
    r.find(FIND_VIDEO, &[(":id", &id)], video_of)
}

fn video_of(row: &Row<'_>) -> rusqlite::Result<Video> {
    Ok(Video {
        id: row.get(0)?,
        path: super::path::VideoPath::stored(row.get(1)?),
        member: row.get(2)?,
        organization: row.get(3)?,
        size: row.get(4)?,
        version: row.get(5)?,
        created_at: row.get(6)?,
        updated_at: row.get(7)?,
    })
}

const INSERT_VIDEO: &str = "
    insert into videos (id, path, member_id, organization_id, size, created_at, updated_at)
    values (:id, :path, :member_id, :organization_id, :size, :created_at, :now)";

/// Returns its row number.
pub fn insert_video(w: &Writer<'_>, video: &Video) -> Result<i64> {
    w.execute(
        INSERT_VIDEO,
        &[
            (":id", &video.id),
            (":path", &video.path.as_str()),
            (":member_id", &video.member),
            (":organization_id", &video.organization),
            (":size", &video.size),
            (":created_at", &video.created_at),
            (":now", &w.now()),
        ],
    )
    .map(|_| w.last_id())
}

const GET_NUMBER: &str = "select number from videos where id = :id";

pub fn get_number(r: &Reader<'_>, id: &str) -> Result<i64> {
    r.one(GET_NUMBER, &[(":id", &id)], |row| row.get(0))
}

const UPDATE_VIDEO: &str = "
    update videos
    set member_id = :member_id, organization_id = :organization_id, size = :size, version = version + 1,
        updated_at = :now
    where id = :id";

/// Updates owner, organization and size.
pub fn update_video(w: &Writer<'_>, video: &Video) -> Result<()> {
    w.execute(
        UPDATE_VIDEO,
        &[
            (":member_id", &video.member),
            (":organization_id", &video.organization),
            (":size", &video.size),
            (":now", &w.now()),
            (":id", &video.id),
        ],
    )
    .map(drop)
}

const DELETE_VIDEO: &str = "delete from videos where id = :id";

pub fn delete_video(w: &Writer<'_>, id: &str) -> Result<()> {
    w.execute(DELETE_VIDEO, &[(":id", &id)]).map(drop)
}

const RENAME_VIDEO: &str = "
    update videos
    set id = :to, path = :path, version = version + 1, updated_at = :now
    where id = :from";

/// Changes id and path. Jobs refer to the row number, so they follow.
pub fn rename_video(w: &Writer<'_>, from: &str, to: &Video) -> Result<()> {
    let (id, path) = (&to.id, to.path.as_str());
    w.execute(RENAME_VIDEO, &[(":to", id), (":path", &path), (":now", &w.now()), (":from", &from)]).map(drop)
}

/// For a reader limited to an organization, the folder's name is searched only if the video's owner is a member of the
/// organization and the folder is the owner's: other members' names cannot be guessed.
const BY_SEEN_PATH: &str = "substr(path, instr(path, '/')) like :seen escape '\\'
     or (path like :seen escape '\\'
         and exists (select 1
                     from memberships s
                     join members m on m.id = s.member_id
                     left join identities i on i.member_id = m.id and i.provider = 'sftpgo'
                     where s.organization_id = videos.organization_id and s.member_id = videos.member_id
                       and substr(path, 1, instr(path, '/') - 1) in (i.subject, m.username)))";
const LIST_VIDEOS: List = List {
    name: "videos",
    columns: "id, path, member_id, organization_id, size, version, created_at, updated_at",
    from: "videos",
    joins: "",
    conditions: &[
        "member_id = :member_id",
        "member_id is null and :is_ownerless",
        "organization_id = :organization_id",
        "+organization_id = :within",
        "path like :keyword escape '\\'",
        BY_SEEN_PATH,
    ],
    order: &["number desc"],
    costly: &[":within", ":keyword", ":seen"],
    walked: &[":within", ":keyword", ":seen"],
    kept: &[
        (&[], "select videos from site_usage"),
        (&[":is_ownerless"], "select ownerless_videos from site_usage"),
        (&[":organization_id"], "select videos from organization_quotas where organization_id = :organization_id"),
    ],
};

/// The same, largest first.
const LIST_VIDEOS_BY_SIZE: List = List {
    name: "videos by size",
    columns: "id, path, member_id, organization_id, size, version, created_at, updated_at",
    from: "videos",
    joins: "",
    conditions: &[
        "member_id = :member_id",
        "member_id is null and :is_ownerless",
        "organization_id = :organization_id",
        "+organization_id = :within",
        "path like :keyword escape '\\'",
        BY_SEEN_PATH,
    ],
    order: &["size desc", "number desc"],
    costly: &[":within", ":keyword", ":seen"],
    walked: &[":within", ":keyword", ":seen"],
    kept: &[
        (&[], "select videos from site_usage"),
        (&[":is_ownerless"], "select ownerless_videos from site_usage"),
        (&[":organization_id"], "select videos from organization_quotas where organization_id = :organization_id"),
    ],
};

/// Lists videos, newest or largest first.
pub fn list_videos(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<Video>> {
    let Filter { member, organization, is_ownerless, keyword, sort } = filter;
    let parameters: Parameters<'_> = &[
        (":member_id", member),
        (":is_ownerless", &(*is_ownerless && member.is_none()).then_some(true)),
        (":organization_id", &organization.filter(|_| member.is_none())),
        (":within", &organization.filter(|_| member.is_some())),
        (":keyword", &keyword.as_ref().filter(|_| organization.is_none())),
        (":seen", &keyword.as_ref().filter(|_| organization.is_some())),
    ];
    let list = match sort {
        SortKey::Registered => &LIST_VIDEOS,
        SortKey::Size => &LIST_VIDEOS_BY_SIZE,
    };
    r.page(list, parameters, window, video_of)
}

const LIST_OWNERLESS_AFTER: &str = "
    select id, path, member_id, organization_id, size, version, created_at, updated_at
    from videos indexed by videos_path
    where member_id is null and path > :after
    order by path
    limit :most";

/// Lists the next videos without an owner, ordered by path.
pub fn list_ownerless_after(r: &Reader<'_>, after: &str, most: u64) -> Result<Vec<Video>> {
    r.all(LIST_OWNERLESS_AFTER, &[(":after", &after), (":most", &(most as i64))], video_of)
}

const LIST_BELOW: &str = "
    select id, path, member_id, organization_id, size, version, created_at, updated_at
    from videos
    where path > :folder || '/' and path < :folder || '0'
    order by path
    limit :most";

/// Selects paths that start with the folder and `/`: the range ends at `0`, the character after `/` in ASCII.
pub fn list_below(r: &Reader<'_>, folder: &str, most: u64) -> Result<Vec<Video>> {
    r.all(LIST_BELOW, &[(":folder", &folder), (":most", &(most as i64))], video_of)
}
