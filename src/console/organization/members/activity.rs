//! What happened around a member: changes made to them, changes they made, and decisions about them.

use maud::{Markup, html};
use serde_json::Value;

use super::{MemberTab, get_user, member_page};
use crate::console::audit;
use crate::console::client::{encoded, op};
use crate::console::components::{self, Column, Field, Row, Select, Tone};
use crate::console::i18n::{fields, words};
use crate::console::list;
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Words {
        show: "Show", "顯示";
        to_them: "Changes to this member", "對此成員的變更";
        by_them: "Changes made by this member", "此成員所做的變更";
        decisions: "Decisions about this member", "此成員的判定";
        at: "Time", "時間";
        who: "Who", "執行者";
        what: "What", "操作";
        target: "To what", "對象";
        outcome: "Outcome", "結果";
        allowed: "Allowed", "允許";
        denied: "Denied", "拒絕";
        asked: "Asked", "查詢內容";
        reason: "Reason", "原因";
        why: "Why?", "原因分析";
        none: "Nothing yet", "還沒有紀錄";
        none_text: "Nothing of this kind was recorded in this organization. Choose another kind above.", "此組織沒有這類紀錄。請在上方選擇其他類型。";
    }
}

const TAB: MemberTab = MemberTab::Activity;

/// What the page lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    ToThem,
    ByThem,
    Decisions,
}

impl Of {
    const ALL: [Self; 3] = [Self::ToThem, Self::ByThem, Self::Decisions];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ToThem => "target",
            Self::ByThem => "actor",
            Self::Decisions => "decisions",
        }
    }

    const fn operation(self) -> &'static str {
        match self {
            Self::ToThem | Self::ByThem => "list_audit",
            Self::Decisions => "list_decisions",
        }
    }

    const fn text(self, t: &Words) -> &'static str {
        match self {
            Self::ToThem => t.to_them,
            Self::ByThem => t.by_them,
            Self::Decisions => t.decisions,
        }
    }
}

/// Shows one kind of activity.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let open: Vec<Of> = Of::ALL.into_iter().filter(|of| visit.may(of.operation())).collect();
    let chosen = visit.query("of").and_then(|text| open.iter().find(|of| of.as_str() == text));
    let of = *chosen.or(open.first()).ok_or(ErrorCode::Forbidden)?;
    let (user, uid) = (get_user(visit).await?, visit.path("uid"));
    let call = match of {
        Of::Decisions => op("list_decisions").query("uid", uid),
        Of::ToThem | Of::ByThem => op("list_audit").query(of.as_str(), uid),
    };
    let data = visit.call(list::paged(visit, call)).await?.data;
    let items = list::items(&data);
    let inner = html! {
        @if items.is_empty() { (components::empty(t.none, t.none_text, None)) }
        @else if of == Of::Decisions { (decisions(visit, items)) }
        @else { (entries(visit, of, items)) }
        (list::pager(visit, &data))
    };
    let options: Vec<(&str, &str)> = open.iter().map(|of| (of.as_str(), of.text(t))).collect();
    let about = Field::new("of", t.show);
    let select = Select { name: "of", options: &options, chosen: of.as_str(), is_required: true };
    let choice = html! { (components::field(&about, components::select_input(&about, &select))) (list::kept(visit)) };
    let body = html! {
        (components::filter_bar(&visit.here(), Some("activity"), choice, visit.frame().filter))
        (components::region("activity", None, inner))
    };
    Ok(member_page(visit, &user, TAB, body).into())
}

fn entries(visit: &Visit, of: Of, items: &[Value]) -> Markup {
    let (t, known) = (Words::of(visit.language), audit::Known::default());
    let columns = [
        Column::new(t.at),
        Column::new(t.what),
        Column::new(if of == Of::ToThem { t.who } else { t.target }),
        Column::new(t.outcome),
    ];
    let row = |entry: &Value| Row {
        cells: vec![
            components::time(entry["at"].as_i64().unwrap_or_default()),
            audit::done(visit, entry),
            if of == Of::ToThem { audit::actor(visit, &known, entry) } else { audit::target(visit, &known, entry) },
            audit::outcome(visit, entry),
        ],
        ..Row::default()
    };
    components::table(of.text(t), &columns, items.iter().map(row).collect())
}

fn decisions(visit: &Visit, items: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let columns = [Column::new(t.at), Column::new(t.asked), Column::new(t.outcome), Column::new(t.reason)];
    let row = |decision: &Value| {
        let reason = decision["reason"].as_str().unwrap_or_default();
        let is_allowed = decision["allow"] == true;
        Row {
            cells: vec![
                components::time(decision["at"].as_i64().unwrap_or_default()),
                html! { code { (asked(&decision["input"])) } },
                components::badge(
                    if is_allowed { Tone::Ok } else { Tone::Bad },
                    if is_allowed { t.allowed } else { t.denied },
                ),
                html! {
                    (fields::value(reason, visit.language))
                    @if let Some(href) = why(visit, decision).filter(|_| visit.organization().is_some() && visit.may("check_permission")) { " " a href=(href) { (t.why) } }
                },
            ],
            ..Row::default()
        }
    };
    components::table(t.decisions, &columns, items.iter().map(row).collect())
}

/// The question that was decided, in one line.
fn asked(input: &Value) -> String {
    let parts = ["action", "path"].iter().filter_map(|key| input[*key].as_str());
    parts.collect::<Vec<_>>().join(" ")
}

/// The same question at the page that explains decisions. `None` if it does not ask questions of this kind.
fn why(visit: &Visit, decision: &Value) -> Option<String> {
    let text = |key: &str| decision["input"][key].as_str().unwrap_or_default();
    let question = match decision["kind"].as_str()? {
        "route" => format!("method={}&path={}", encoded(text("action")), encoded(text("path"))),
        "permission" => {
            let facts = decision["input"]["context"].as_array().into_iter().flatten();
            let mut named = facts.filter(|fact| fact["name"] == "permission");
            let name = named.find_map(|fact| fact["values"][0].as_str()).unwrap_or_else(|| text("path"));
            format!("permission={}", encoded(name))
        }
        _ => return None,
    };
    Some(visit.in_organization(&format!("why?uid={}&{question}", encoded(visit.path("uid")))))
}
