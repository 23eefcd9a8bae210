//! SQL of jobs.

use crate::db::Writer;
use crate::error::Result;
use crate::ids::{JobId, MemberId, OrganizationId};

const INSERT_JOB: &str = "
    insert into jobs (id, video_id, member_id, organization_id, kind, state, run_at, created_at, updated_at)
    values (:id, :video_id, :member_id, :organization_id, 'auto_ingestion', 'queued', :now, :now, :now)";

pub(super) fn insert(
    w: &Writer<'_>,
    id: JobId,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    w.execute(
        INSERT_JOB,
        &[
            (":id", &id),
            (":video_id", &video),
            (":member_id", &member),
            (":organization_id", &organization),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const INSERT_STEP: &str = "
    insert into job_steps (job_id, processor, state, updated_at)
    values (:job_id, :processor, :state, :now)";

pub(super) fn insert_step(w: &Writer<'_>, job: JobId, processor: &str, state: &str) -> Result<()> {
    w.execute(INSERT_STEP, &[(":job_id", &job), (":processor", &processor), (":state", &state), (":now", &w.now())])
        .map(drop)
}

const DELETE_STEPS_OF_VIDEO: &str = "
    delete from job_steps
    where job_id in (select id from jobs where video_id = :video_id)";
const DELETE_JOBS_OF_VIDEO: &str = "delete from jobs where video_id = :video_id";

pub(super) fn delete_of_video(w: &Writer<'_>, video: &str) -> Result<()> {
    w.execute(DELETE_STEPS_OF_VIDEO, &[(":video_id", &video)])?;
    w.execute(DELETE_JOBS_OF_VIDEO, &[(":video_id", &video)]).map(drop)
}

const SET_JOB_OWNER: &str = "
    update jobs
    set member_id = :member_id, organization_id = :organization_id, updated_at = :now
    where video_id = :video_id";

pub(super) fn set_owner(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    w.execute(
        SET_JOB_OWNER,
        &[(":member_id", &member), (":organization_id", &organization), (":now", &w.now()), (":video_id", &video)],
    )
    .map(drop)
}
