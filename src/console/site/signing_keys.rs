//! The keys that sign access tokens, and their rotation.

use maud::{Markup, html};
use serde_json::Value;

use crate::console::client::op;
use crate::console::components::{
    self, Column, Confirm, Kind, Row, Tone, badge, copyable, link_button_of, table, time, time_or,
};
use crate::console::i18n::fill;
use crate::console::i18n::settings::SigningKeys;
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;

/// Shows the published keys, or the page before the rotation.
pub async fn list(visit: &Visit) -> Result<View> {
    let t = SigningKeys::of(visit.language);
    if visit.query("confirm") == Some("rotate") {
        return Ok(confirm(visit, t).into());
    }
    let found = visit.call(op("list_signing_keys")).await?.data;
    let frame = visit.frame();
    let columns = [Column::new(t.id), Column::new(t.state), Column::new(t.created), Column::new(t.ends)];
    let rows = list::items(&found).iter().map(|key| row(t, key)).collect();
    let life_s = visit.config().signing_key_ttl_s;
    let jwks = format!("{}/.well-known/jwks.json", visit.public_url());
    let body = html! {
        p { (t.about) }
        (table(t.title, &columns, rows))
        p { @if life_s == 0 { (t.by_hand) } @else { (fill(t.automatic, &[&life_s.div_ceil(DAY_S)])) } }
        p { (t.published) }
        (copyable(&jwks, frame.copy, frame.copied))
    };
    let rotation = format!("{}?confirm=rotate", visit.here());
    let content = Content::new(t.title, body);
    Ok(match visit.may("rotate_signing_key") {
        true => content.actions(link_button_of(&rotation, t.rotate, Kind::Plain, None)).into(),
        false => content.into(),
    })
}

fn row(t: &SigningKeys, key: &Value) -> Row {
    let signs = key["signs"] == true;
    let state: Markup = if signs { badge(Tone::Ok, t.signs) } else { badge(Tone::Plain, t.accepted) };
    Row {
        cells: vec![
            html! { code { (key["id"].as_str().unwrap_or_default()) } },
            state,
            time(key["created_at"].as_i64().unwrap_or_default()),
            time_or(key["ends_at"].as_i64(), "–"),
        ],
        ..Row::default()
    }
}

fn confirm(visit: &Visit, t: &SigningKeys) -> Content {
    let hours = visit.config().signing_key_overlap_s.div_ceil(HOUR_S);
    let sentences =
        [t.what_new.to_owned(), fill(t.what_kept, &[&hours]), t.what_others.to_owned(), t.what_final.to_owned()];
    let body = components::confirm_box(&Confirm {
        title: t.rotate,
        action: &visit.here(),
        what_goes: &sentences,
        typed: None,
        sent: Some(components::hidden_input("act", "rotate")),
        submit: t.rotate,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(t.rotate, body)
}

/// Makes a new key.
pub async fn act(visit: &Visit) -> Result<View> {
    if visit.submitted("act") != Some("rotate") {
        return Err(ErrorCode::BadInput.into());
    }
    visit.call(op("rotate_signing_key")).await?;
    visit.done(visit.address.clone(), SigningKeys::of(visit.language).rotated)
}
