//! Delivers events to their targets: in order for each target, and to several targets concurrently.
//!
//! One task finds targets whose oldest event is due, and starts a task for each. A delivery is recorded after the
//! target has answered: a crash in between causes a second delivery, never a lost one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::features::webhooks::sender::{self, Sender};
use crate::features::webhooks::{self, backoff_ms};
use crate::integrations::wordpress::status;
use crate::integrations::{mail, sftpgo};
use crate::kernel::app::{App, seconds_to_ms};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome, DeliveryState, Target, TargetKind, kind_of};
use crate::kernel::outbox::delivery_store::{self as store, PendingTarget};
use crate::kernel::secret;

/// Webhooks that are served concurrently. Further ones wait; a webhook between two attempts does not count.
const WEBHOOKS_AT_ONCE_MAX: usize = 256;
/// Webhooks of one organization, or of the site, that are served concurrently, so that slow ones do not delay those of
/// others.
const WEBHOOKS_PER_OWNER_MAX: usize = 32;
/// Limits of one batch: events, and the time after which no further event is started. Then other targets get a chance.
const BATCH_EVENTS_MAX: usize = 50;
const BATCH_TIME_MAX: Duration = Duration::from_secs(30);
/// The wait after a failure of the database or a panic of a task.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Longest sleep, because the clock can be changed meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Targets with a common concurrency limit: all mail, SFTPGo or WordPress targets, or the webhooks of one organization.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pool {
    /// `None` for targets that this version does not know.
    kind: Option<TargetKind>,
    organization: Option<OrganizationId>,
}

impl Pool {
    /// How many of its targets are served concurrently.
    fn concurrency_max(&self) -> usize {
        match self.kind {
            Some(TargetKind::Mail) => crate::kernel::outbound::mail::CONCURRENT_MAX,
            Some(TargetKind::Sftpgo) => sftpgo::CONCURRENT_MAX,
            Some(TargetKind::Wordpress) => status::CONCURRENT_MAX,
            Some(TargetKind::Webhook) | None => WEBHOOKS_PER_OWNER_MAX,
        }
    }

    fn is_webhooks(&self) -> bool {
        self.kind == Some(TargetKind::Webhook)
    }
}

/// Delivers events. Does not return.
pub async fn run(app: Arc<App>) {
    let sender = Arc::new(Sender::new(&app.config));
    let mut busy: HashMap<String, Pool> = HashMap::new();
    let mut batches: JoinSet<String> = JoinSet::new();
    loop {
        let wait = match app.read(store::list_heads).await {
            Ok(heads) => start_due(&app, &sender, heads, &mut busy, &mut batches),
            Err(e) => {
                tracing::warn!(error = %e, "the outbox cannot be read and will be tried again");
                RETRY_WAIT
            }
        };
        tokio::select! {
            () = app.outbox.notified() => {}
            () = tokio::time::sleep(wait) => {}
            Some(ended) = batches.join_next() => match ended {
                Ok(target) => drop(busy.remove(&target)),
                Err(e) => {
                    // The target of the panicked task is unknown, so all tasks are stopped and started again.
                    tracing::error!(error = %e, "a delivery panicked");
                    app.metrics.panics.inc();
                    batches.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            },
        }
    }
}

/// Starts a task for every chosen target. Returns how long to wait until the next target is due.
fn start_due(
    app: &Arc<App>,
    sender: &Arc<Sender>,
    heads: Vec<PendingTarget>,
    busy: &mut HashMap<String, Pool>,
    batches: &mut JoinSet<String>,
) -> Duration {
    let (chosen, wait) = choose(heads, busy, Timestamp::now());
    for (target, pool) in chosen {
        busy.insert(target.clone(), pool);
        let (app, sender) = (app.clone(), sender.clone());
        batches.spawn(async move {
            if let Err(e) = deliver_batch(&app, &sender, &target).await {
                tracing::warn!(target, error = %e, "a delivery could not be recorded and will be repeated");
                tokio::time::sleep(RETRY_WAIT).await;
            }
            target
        });
    }
    wait
}

/// Chooses the due targets to serve now, longest waiting first, within the limits of their pools. Also returns how long
/// until the next target is due. Targets that exceed a limit are considered again when a task ends, which wakes `run`.
fn choose(
    mut heads: Vec<PendingTarget>,
    busy: &HashMap<String, Pool>,
    now: Timestamp,
) -> (Vec<(String, Pool)>, Duration) {
    heads.retain(|head| !busy.contains_key(&head.target));
    heads.sort_by_key(|head| head.next_at);
    let mut webhooks = busy.values().filter(|pool| pool.is_webhooks()).count();
    let mut used: HashMap<Pool, usize> = HashMap::new();
    busy.values().for_each(|pool| *used.entry(pool.clone()).or_default() += 1);
    let mut chosen = Vec::new();
    for PendingTarget { target, organization, next_at } in heads {
        if next_at > now {
            let ahead = Duration::from_millis(u64::try_from(next_at.0 - now.0).unwrap_or_default());
            return (chosen, SLEEP_MAX.min(ahead));
        }
        let pool = Pool { kind: TargetKind::of(&target), organization };
        let in_pool = used.entry(pool.clone()).or_default();
        if *in_pool >= pool.concurrency_max() || (pool.is_webhooks() && webhooks >= WEBHOOKS_AT_ONCE_MAX) {
            continue;
        }
        *in_pool += 1;
        webhooks += usize::from(pool.is_webhooks());
        chosen.push((target, pool));
    }
    (chosen, SLEEP_MAX)
}

/// Delivers due events to a target in order, within the limits of one batch.
async fn deliver_batch(app: &App, sender: &Sender, target: &str) -> Result<()> {
    let started = Instant::now();
    for _ in 0..BATCH_EVENTS_MAX {
        if started.elapsed() >= BATCH_TIME_MAX {
            break;
        }
        let name = target.to_owned();
        let Some(head) = app.read(move |r| store::find_head(r, &name)).await? else {
            return Ok(());
        };
        if head.next_at > Timestamp::now() {
            return Ok(());
        }
        let outcome = attempt(app, sender, &head).await?;
        record(app, head, outcome).await?;
    }
    Ok(())
}

/// Makes one attempt. An `Err` is an internal failure, which does not count as an attempt.
async fn attempt(app: &App, sender: &Sender, delivery: &Delivery) -> Result<DeliveryOutcome> {
    match Target::parse(&delivery.target) {
        Some(Target::Webhook(id)) => sender::deliver(app, sender, id, delivery).await,
        Some(Target::Mail(member)) => mail::deliver(app, member, delivery).await,
        Some(Target::Sftpgo(member)) => sftpgo::deliver(app, member, delivery).await,
        Some(Target::Wordpress(member)) => status::deliver(app, member).await,
        None => Ok(DeliveryOutcome::TargetGone("this version of Roster does not know this target".into())),
    }
}

/// Records the outcome of an attempt, and schedules the next one.
async fn record(app: &App, delivery: Delivery, outcome: DeliveryOutcome) -> Result<()> {
    let config = &app.config;
    let kind = kind_of(&delivery.target).to_owned();
    let count = |word: &str| app.metrics.deliveries.with_label_values(&[kind.as_str(), word]).inc();
    let attempts = delivery.attempts + 1;
    let id = delivery.name();
    match without_secrets(app, outcome) {
        DeliveryOutcome::Delivered => {
            count("delivered");
            if kind == TargetKind::Webhook.as_str() {
                app.outbound.records.record_success(webhooks::CONNECTION);
            }
            let settle =
                move |w: &Writer<'_>| store::record_outcome(w, &delivery, DeliveryState::Delivered, w.now(), None);
            app.write_unaudited(settle).await
        }
        DeliveryOutcome::Skipped(why) => {
            count("delivered");
            let settle =
                move |w: &Writer<'_>| store::record_outcome(w, &delivery, DeliveryState::Delivered, w.now(), Some(why));
            app.write_unaudited(settle).await
        }
        DeliveryOutcome::Failed { why, not_before_s } if attempts < config.outbox_attempts_max => {
            count("failed");
            let backoff = jittered(backoff_ms(attempts, config.outbox_backoff_s, config.outbox_backoff_max_s))?;
            let requested = seconds_to_ms(not_before_s.unwrap_or_default().min(config.outbox_backoff_max_s));
            tracing::info!(delivery = id, attempts, why, "a delivery failed and will be repeated");
            let wait_ms = backoff.max(requested);
            app.write_unaudited(move |w| {
                store::record_outcome(w, &delivery, DeliveryState::Pending, w.now().plus_ms(wait_ms), Some(&why))
            })
            .await
        }
        DeliveryOutcome::Failed { why, .. } | DeliveryOutcome::PermanentFailure(why) => {
            count("dead");
            tracing::warn!(
                delivery = id,
                attempts,
                why,
                "a delivery is dead after its last attempt: `roster outbox retry` tries it again"
            );
            let settle =
                move |w: &Writer<'_>| store::record_outcome(w, &delivery, DeliveryState::Dead, w.now(), Some(&why));
            app.write_unaudited(settle).await
        }
        DeliveryOutcome::TargetGone(why) => {
            count("dead");
            tracing::warn!(delivery = id, why, "a target no longer exists: its pending deliveries are marked dead");
            app.write_in_batches(move |w, most| store::give_up(w, &delivery.target, &why, most)).await.map(drop)
        }
    }
}

/// The outcome without our own secrets, which the other side can repeat in its words.
fn without_secrets(app: &App, outcome: DeliveryOutcome) -> DeliveryOutcome {
    let hide = |why: String| app.outbound.secrets.hide(&why);
    match outcome {
        DeliveryOutcome::Failed { why, not_before_s } => DeliveryOutcome::Failed { why: hide(why), not_before_s },
        DeliveryOutcome::PermanentFailure(why) => DeliveryOutcome::PermanentFailure(hide(why)),
        outcome @ (DeliveryOutcome::Delivered | DeliveryOutcome::Skipped(_) | DeliveryOutcome::TargetGone(_)) => {
            outcome
        }
    }
}

/// The wait plus or minus a fifth (jitter), so that targets that failed together are not retried together.
fn jittered(wait_ms: u64) -> Result<i64> {
    let random = u64::from(secret::random()?[0]);
    let wait_ms = wait_ms.saturating_mul(4) / 5 + (wait_ms.saturating_mul(2) / 5).saturating_mul(random) / 255;
    Ok(i64::try_from(wait_ms).unwrap_or(i64::MAX))
}

/// Deletes finished deliveries that are older than `outbox.ttl_s`.
pub async fn purge_expired(app: &App) -> Result<()> {
    /// Events to delete per run; the next run deletes more.
    const EVENTS_MAX: usize = 10_000;
    const TARGETS_MAX: usize = 100;
    let ttl_ms = seconds_to_ms(app.config.outbox_ttl_s);
    let forget = |state: DeliveryState| {
        app.write_in_batches(move |w, most| store::forget(w, state, w.now().plus_ms(-ttl_ms), most))
    };
    forget(DeliveryState::Delivered).await?;
    let dead = forget(DeliveryState::Dead).await?;
    if dead > 0 {
        tracing::warn!(dead, "old dead deliveries were deleted");
    }
    for target in app.read(|r| store::list_targets_of_deleted(r, TARGETS_MAX)).await? {
        webhooks::delete_target_deliveries(app, target).await?;
    }
    let before = Timestamp::now().plus_ms(-ttl_ms);
    let old = app.read(move |r| store::list_old_events(r, before, EVENTS_MAX)).await?;
    app.write_each_unaudited(old, |w, id| store::forget_event(w, *id)).await
}

/// Updates the metrics of the outbox.
pub async fn observe(app: &App) -> Result<()> {
    let count = |r: &Reader<'_>| Ok((store::count(r, DeliveryState::Pending)?, store::count(r, DeliveryState::Dead)?));
    let (pending, dead) = app.read(count).await?;
    let age_ms = pending.oldest.map_or(0, |at| Timestamp::now().0 - at.0);
    let gauge = &app.metrics.outbox;
    gauge.reset();
    for (state, counted) in [(DeliveryState::Pending.as_str(), pending), (DeliveryState::Dead.as_str(), dead)] {
        counted.counts.iter().for_each(|(kind, count)| gauge.with_label_values(&[kind.as_str(), state]).set(*count));
    }
    app.metrics.outbox_oldest_s.set(age_ms.max(0) / 1_000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_slow_targets_does_not_delay_others() {
        let webhooks = |organization: Option<OrganizationId>, count: usize, at: i64| {
            let head =
                move |n| PendingTarget { target: format!("webhook {at} {n}"), organization, next_at: Timestamp(at) };
            (0..count).map(head)
        };
        let targets_of = |kind: &str| -> Vec<PendingTarget> {
            let head = |n| PendingTarget { target: format!("{kind} {n}"), organization: None, next_at: Timestamp(9) };
            (0..40).map(head).collect()
        };
        let (many, few) = (OrganizationId::new(), OrganizationId::new());
        let mut heads: Vec<PendingTarget> = webhooks(Some(many), 1_000, 1).chain(webhooks(Some(few), 3, 2)).collect();
        heads.extend(targets_of("mail").into_iter().chain(targets_of("sftpgo")));

        let (chosen, _) = choose(heads, &HashMap::new(), Timestamp(10));

        let count = |kind: TargetKind, organization: Option<OrganizationId>| {
            chosen.iter().filter(|(_, pool)| (pool.kind, pool.organization) == (Some(kind), organization)).count()
        };
        let webhooks_of = |organization| count(TargetKind::Webhook, Some(organization));
        assert_eq!([webhooks_of(many), webhooks_of(few)], [WEBHOOKS_PER_OWNER_MAX, 3]);
        assert_eq!(
            [count(TargetKind::Mail, None), count(TargetKind::Sftpgo, None)],
            [crate::kernel::outbound::mail::CONCURRENT_MAX, sftpgo::CONCURRENT_MAX]
        );
        // Webhooks leave capacity for mail and account updates, and a busy target gets no second delivery.
        let busy: HashMap<_, _> = chosen.into_iter().collect();
        let others = (0..20).flat_map(|_| webhooks(Some(OrganizationId::new()), 20, 3).collect::<Vec<_>>());
        let all = others.enumerate().map(|(n, head)| PendingTarget { target: format!("webhook x {n}"), ..head });
        let all: Vec<PendingTarget> = all.chain(webhooks(Some(few), 3, 2)).collect();
        assert_eq!(choose(all, &busy, Timestamp(10)).0.len(), WEBHOOKS_AT_ONCE_MAX - WEBHOOKS_PER_OWNER_MAX - 3);
        let (chosen, wait) = choose(targets_of("mail"), &HashMap::new(), Timestamp(2));
        assert_eq!((chosen.len(), wait), (0, Duration::from_millis(7)));
    }

    #[test]
    fn the_jitter_is_a_fifth_at_most() {
        for _ in 0..200 {
            assert!((80..=120).contains(&jittered(100).expect("random")));
            assert_eq!(jittered(0).expect("random"), 0);
        }
        assert!(jittered(u64::MAX).is_ok());
    }
}
