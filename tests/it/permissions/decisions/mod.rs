//! Compares the decisions of `POST /check` with a second, naive evaluator that reads the rows. After random
//! administration, it also compares the policy in memory with a rebuilt one.
//!
//! The evaluator shares no code with `src/kernel/authz`: it follows the text of the policy, slowly and simply.

mod naive_evaluator;
mod town;

use serde_json::json;

use crate::harness::site::{ADMIN, PASSWORD};
use crate::permissions::P;
use naive_evaluator::Rows;
use town::Town;

#[tokio::test]
async fn ten_thousand_decisions_equal_those_of_the_naive_evaluator() {
    let mut town = Town::found().await;
    let mut allowed = 0;
    for _ in 0..20 {
        let rows = Rows::read(&town.site);
        for _ in 0..5 {
            allowed += town.compare(&rows).await;
        }
        for _ in 0..6 {
            town.administer().await;
        }
    }
    assert!(
        allowed > 100,
        "ROSTER_TEST_SEED={}: too few of the questions are allowed to prove anything: {allowed}",
        town.seed
    );
}

#[tokio::test]
async fn the_policy_in_memory_equals_a_rebuilt_one_after_random_changes() {
    let mut town = Town::found().await;
    for step in 1..=48 {
        for _ in 0..5 {
            town.administer().await;
        }
        if step % 12 == 0 {
            town.site.restart().await;
            town.site.admin_token = town.site.token(ADMIN, PASSWORD).await;
        }
        let reloaded = town.site.admin().post(&format!("{P}/policy/reload"), json!({})).await.data();
        assert_eq!(reloaded["changed"], json!(false), "ROSTER_TEST_SEED={}: {reloaded}", town.seed);
        assert_eq!(reloaded["old_epoch"], reloaded["new_epoch"]);
        let rows = Rows::read(&town.site);
        town.compare(&rows).await;
    }
}
