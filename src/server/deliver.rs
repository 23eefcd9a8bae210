//! The deliverer: brings events to their targets, each target's in order, the targets beside each other.
//!
//! One task looks for targets whose oldest event is due, and starts a task for each. A delivery is recorded after its
//! answer: after a crash in between it is delivered twice, never lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::features::webhooks::sender::{self, Sender};
use crate::features::webhooks::{self, backoff_ms};
use crate::integrations::wordpress::status;
use crate::integrations::{mail, sftpgo};
use crate::kernel::app::{App, ms};
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome, Target, kind_of};
use crate::kernel::outbox::delivery_store::{self as store, Head};
use crate::kernel::secret;

/// Webhooks that are busy at the same time; more wait for their turn, and one that fails waits elsewhere.
const WEBHOOKS_AT_ONCE_MAX: usize = 256;
/// Those of one organization, or of the site: slow ones keep nobody else's waiting.
const WEBHOOKS_OF_ONE_MAX: usize = 32;
/// What a target gets before another one has its turn.
const EVENTS_IN_A_ROW_MAX: usize = 50;
const TURN_MAX: Duration = Duration::from_secs(30);
/// After trouble with the database.
const PAUSE: Duration = Duration::from_secs(1);
/// The clock may be set anew: nobody sleeps longer.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Who shares turns: those of a kind that wait for the same server, and each organization's webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pool {
    kind: String,
    organization: Option<OrganizationId>,
}

impl Pool {
    /// Targets of it that are busy at the same time.
    fn at_once_max(&self) -> usize {
        match self.kind.as_str() {
            "mail" => crate::kernel::outbound::mail::AT_ONCE_MAX,
            "sftpgo" => sftpgo::AT_ONCE_MAX,
            "wordpress" => status::AT_ONCE_MAX,
            _ => WEBHOOKS_OF_ONE_MAX,
        }
    }

    fn is_webhooks(&self) -> bool {
        self.kind == "webhook"
    }
}

/// Delivers until it is dropped.
pub async fn run(app: Arc<App>) {
    let sender = Arc::new(Sender::new(&app.config));
    let mut busy: HashMap<String, Pool> = HashMap::new();
    let mut turns: JoinSet<String> = JoinSet::new();
    loop {
        let wait = match app.read(store::list_heads).await {
            Ok(heads) => begin(&app, &sender, heads, &mut busy, &mut turns),
            Err(e) => {
                tracing::warn!(error = %e, "the outbox cannot be read and will be tried again");
                PAUSE
            }
        };
        tokio::select! {
            () = app.outbox.notified() => {}
            () = tokio::time::sleep(wait) => {}
            Some(over) = turns.join_next() => match over {
                Ok(target) => drop(busy.remove(&target)),
                Err(e) => {
                    // Whose it was is not known any more: all that still run say so themselves.
                    tracing::error!(error = %e, "a delivery panicked");
                    app.metrics.panics.inc();
                    turns.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Begins a turn of every target whose time has come; answers how long until the next one's.
fn begin(
    app: &Arc<App>,
    sender: &Arc<Sender>,
    heads: Vec<Head>,
    busy: &mut HashMap<String, Pool>,
    turns: &mut JoinSet<String>,
) -> Duration {
    let (chosen, wait) = choose(heads, busy, Timestamp::now());
    for (target, pool) in chosen {
        busy.insert(target.clone(), pool);
        let (app, sender) = (app.clone(), sender.clone());
        turns.spawn(async move {
            if let Err(e) = serve(&app, &sender, &target).await {
                tracing::warn!(target, error = %e, "a delivery was not written down and will be repeated");
                tokio::time::sleep(PAUSE).await;
            }
            target
        });
    }
    wait
}

/// Who of those that are due has a turn now, the longest waiting first; and how long until the next one is due. For whom
/// there is no room now there will be when somebody is done, which wakes us.
fn choose(mut heads: Vec<Head>, busy: &HashMap<String, Pool>, now: Timestamp) -> (Vec<(String, Pool)>, Duration) {
    heads.retain(|head| !busy.contains_key(&head.target));
    heads.sort_by_key(|head| head.next_at);
    let mut webhooks = busy.values().filter(|pool| pool.is_webhooks()).count();
    let mut taken: HashMap<Pool, usize> = HashMap::new();
    busy.values().for_each(|pool| *taken.entry(pool.clone()).or_default() += 1);
    let mut chosen = Vec::new();
    for Head { target, organization, next_at } in heads {
        if next_at > now {
            let ahead = Duration::from_millis(u64::try_from(next_at.0 - now.0).unwrap_or_default());
            return (chosen, SLEEP_MAX.min(ahead));
        }
        let pool = Pool { kind: kind_of(&target).to_owned(), organization };
        let of_pool = taken.entry(pool.clone()).or_default();
        if *of_pool >= pool.at_once_max() || (pool.is_webhooks() && webhooks >= WEBHOOKS_AT_ONCE_MAX) {
            continue;
        }
        *of_pool += 1;
        webhooks += usize::from(pool.is_webhooks());
        chosen.push((target, pool));
    }
    (chosen, SLEEP_MAX)
}

/// Delivers what is due for a target, one after the other.
async fn serve(app: &App, sender: &Sender, target: &str) -> Result<()> {
    let begun = Instant::now();
    for _ in 0..EVENTS_IN_A_ROW_MAX {
        if begun.elapsed() >= TURN_MAX {
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
        write_down(app, head, outcome).await?;
    }
    Ok(())
}

/// One attempt. An error is our own trouble, and counts against nobody.
async fn attempt(app: &App, sender: &Sender, delivery: &Delivery) -> Result<DeliveryOutcome> {
    match Target::parse(&delivery.target) {
        Some(Target::Webhook(id)) => sender::deliver(app, sender, id, delivery).await,
        Some(Target::Letters(member)) => mail::deliver(app, member, delivery).await,
        Some(Target::Sftpgo(member)) => sftpgo::deliver(app, member, delivery).await,
        Some(Target::Wordpress(member)) => status::deliver(app, member).await,
        None => Ok(DeliveryOutcome::Gone("this program delivers nothing there".into())),
    }
}

async fn write_down(app: &App, delivery: Delivery, outcome: DeliveryOutcome) -> Result<()> {
    let config = &app.config;
    let kind = kind_of(&delivery.target).to_owned();
    let count = |word: &str| app.metrics.deliveries.with_label_values(&[kind.as_str(), word]).inc();
    let attempts = delivery.attempts + 1;
    let id = delivery.name();
    match outcome {
        DeliveryOutcome::Delivered => {
            count("delivered");
            app.write_unaudited(move |w| store::settle(w, &delivery, "delivered", w.now(), None)).await
        }
        DeliveryOutcome::Needless(why) => {
            count("delivered");
            app.write_unaudited(move |w| store::settle(w, &delivery, "delivered", w.now(), Some(why))).await
        }
        DeliveryOutcome::Failed { why, not_before_s } if attempts < config.outbox_attempts_max => {
            count("failed");
            let backoff = jittered(backoff_ms(attempts, config.outbox_backoff_s, config.outbox_backoff_max_s))?;
            let asked = ms(not_before_s.unwrap_or_default().min(config.outbox_backoff_max_s));
            tracing::info!(delivery = id, attempts, why, "a delivery failed and will be repeated");
            let wait_ms = backoff.max(asked);
            app.write_unaudited(move |w| store::settle(w, &delivery, "pending", w.now().plus_ms(wait_ms), Some(&why)))
                .await
        }
        DeliveryOutcome::Failed { why, .. } | DeliveryOutcome::Refused(why) => {
            count("dead");
            tracing::warn!(
                delivery = id,
                attempts,
                why,
                "a delivery is dead after its last attempt: `roster outbox retry` tries it again"
            );
            app.write_unaudited(move |w| store::settle(w, &delivery, "dead", w.now(), Some(&why))).await
        }
        DeliveryOutcome::Gone(why) => {
            count("dead");
            tracing::warn!(delivery = id, why, "a target no longer exists: its pending deliveries are marked dead");
            app.write_in_batches(move |w, most| store::bury(w, &delivery.target, &why, most)).await.map(drop)
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
    /// Events that are forgotten at a time; the next upkeep takes the rest.
    const EVENTS_MAX: usize = 10_000;
    const TARGETS_MAX: usize = 100;
    let ttl_ms = ms(app.config.outbox_ttl_s);
    let forget = |state: &'static str| {
        app.write_in_batches(move |w, most| store::forget(w, state, w.now().plus_ms(-ttl_ms), most))
    };
    forget("delivered").await?;
    let dead = forget("dead").await?;
    if dead > 0 {
        tracing::warn!(dead, "deliveries that were given up long ago are forgotten");
    }
    for target in app.read(|r| store::list_targets_of_deleted(r, TARGETS_MAX)).await? {
        webhooks::forget_target(app, target).await?;
    }
    let before = Timestamp::now().plus_ms(-ttl_ms);
    let old = app.read(move |r| store::list_old_events(r, before, EVENTS_MAX)).await?;
    app.write_each_unaudited(old, |w, id| store::forget_event(w, *id)).await
}

/// Updates the metrics of the outbox.
pub async fn observe(app: &App) -> Result<()> {
    let (pending, dead) = app.read(|r| Ok((store::count(r, "pending")?, store::count(r, "dead")?))).await?;
    let age_ms = pending.oldest.map_or(0, |at| Timestamp::now().0 - at.0);
    let waiting = &app.metrics.outbox;
    waiting.reset();
    for (state, counted) in [("pending", pending), ("dead", dead)] {
        counted.counts.iter().for_each(|(kind, count)| waiting.with_label_values(&[kind.as_str(), state]).set(*count));
    }
    app.metrics.outbox_oldest_s.set(age_ms.max(0) / 1_000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_many_slow_targets_leaves_room_for_others() {
        let webhooks = |organization: Option<OrganizationId>, count: usize, at: i64| {
            let head = move |n| Head { target: format!("webhook {at} {n}"), organization, next_at: Timestamp(at) };
            (0..count).map(head)
        };
        let of = |kind: &str| -> Vec<Head> {
            let head = |n| Head { target: format!("{kind} {n}"), organization: None, next_at: Timestamp(9) };
            (0..40).map(head).collect()
        };
        let (many, few) = (OrganizationId::new(), OrganizationId::new());
        let mut heads: Vec<Head> = webhooks(Some(many), 1_000, 1).chain(webhooks(Some(few), 3, 2)).collect();
        heads.extend(of("mail").into_iter().chain(of("sftpgo")));

        let (chosen, _) = choose(heads, &HashMap::new(), Timestamp(10));

        let count = |kind: &str, organization: Option<OrganizationId>| {
            chosen.iter().filter(|(_, pool)| (pool.kind.as_str(), pool.organization) == (kind, organization)).count()
        };
        assert_eq!([count("webhook", Some(many)), count("webhook", Some(few))], [WEBHOOKS_OF_ONE_MAX, 3]);
        assert_eq!(
            [count("mail", None), count("sftpgo", None)],
            [crate::kernel::outbound::mail::AT_ONCE_MAX, sftpgo::AT_ONCE_MAX]
        );
        // Webhooks leave capacity for mail and account updates, and a busy target gets no second delivery.
        let busy: HashMap<_, _> = chosen.into_iter().collect();
        let others = (0..20).flat_map(|_| webhooks(Some(OrganizationId::new()), 20, 3).collect::<Vec<_>>());
        let all = others.enumerate().map(|(n, head)| Head { target: format!("webhook x {n}"), ..head });
        let all: Vec<Head> = all.chain(webhooks(Some(few), 3, 2)).collect();
        assert_eq!(choose(all, &busy, Timestamp(10)).0.len(), WEBHOOKS_AT_ONCE_MAX - WEBHOOKS_OF_ONE_MAX - 3);
        let (chosen, wait) = choose(of("mail"), &HashMap::new(), Timestamp(2));
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
