//! Acts on one or several members of the list: the bar with their buttons, the calls, and what became of each member.

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::json;

use super::{BULK_FORM, Words, back, name_of, page, sentence_of_act, take_out_box};
use crate::console::client::{Call, op};
use crate::console::components::{self, Bulk, Field, Kind, Select, Tone};
use crate::console::i18n::{Language, errors, fill};
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

/// The bar with the acts on the selected rows.
pub(super) fn bulk_bar(visit: &Visit, roles: &[(String, String)]) -> Markup {
    let t = Words::of(visit.language);
    let acts: Vec<Act> = Act::of(visit).collect();
    if acts.is_empty() {
        return html! {};
    }
    let options: Vec<(&str, &str)> = roles.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    let about = Field::new("role_id", t.role);
    let select = Select { name: "role_id", options: &options, chosen: "", is_required: false };
    let buttons = html! {
        @for act in acts {
            @if act != Act::GiveRole {
                @let kind = if act == Act::TakeOut { Kind::Danger } else { Kind::Plain };
                (components::button_named("act", act.as_str(), act.text(visit.language), kind))
            } @else if !roles.is_empty() {
                (components::field(&about, components::select_input(&about, &select)))
                (components::button_named("act", act.as_str(), act.text(visit.language), Kind::Plain))
            }
        }
    };
    let bulk = Bulk {
        form: BULK_FORM,
        action: &visit.with_query(&[]),
        text: t.with_selected,
        counted: visit.frame().selected,
        all: t.all_here,
    };
    components::bulk_bar(&bulk, buttons)
}

/// What can be done to several members at once. The operation is asked for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Suspend,
    Activate,
    GiveRole,
    TakeOut,
}

impl Act {
    pub(super) const ALL: [Self; 4] = [Self::Suspend, Self::Activate, Self::GiveRole, Self::TakeOut];

    /// The acts that the visitor may perform here. Roles and memberships belong to an organization.
    pub(super) fn of(visit: &Visit) -> impl Iterator<Item = Self> + '_ {
        let is_here = visit.organization().is_some();
        let is_of_place = move |act: &Self| is_here || matches!(act, Self::Suspend | Self::Activate);
        Self::ALL.into_iter().filter(is_of_place).filter(move |act| visit.may(act.operation()))
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::GiveRole => "give_role",
            Self::TakeOut => "take_out",
        }
    }

    pub(super) const fn operation(self) -> &'static str {
        match self {
            Self::Suspend => "deactivate_member",
            Self::Activate => "activate_member",
            Self::GiveRole => "assign_user_role",
            Self::TakeOut => "unlink_member",
        }
    }

    pub(super) fn text(self, language: Language) -> &'static str {
        let t = Words::of(language);
        match self {
            Self::Suspend => t.suspend,
            Self::Activate => t.activate,
            Self::GiveRole => t.give_role,
            Self::TakeOut => t.take_out,
        }
    }

    /// Whether nobody can do it to themselves here: it would end their own access.
    const fn leaves_out_oneself(self) -> bool {
        matches!(self, Self::Suspend | Self::TakeOut)
    }

    /// What was done to one, and to several.
    fn done(self, language: Language) -> [&'static str; 2] {
        let t = Words::of(language);
        match self {
            Self::Suspend => [t.suspended_one, t.suspended_many],
            Self::Activate => [t.activated_one, t.activated_many],
            Self::GiveRole => [t.given_one, t.given_many],
            Self::TakeOut => [t.taken_out_one, t.taken_out_many],
        }
    }

    /// The call for one member. `value` is the role, or the organization to leave.
    fn call(self, uid: &str, value: &str) -> Call {
        let call = op(self.operation()).at(uid);
        match self {
            Self::Suspend | Self::Activate => call,
            Self::GiveRole => call.body(&json!({"role_id": value})),
            Self::TakeOut => call.at(value),
        }
    }
}

/// What became of one of several members.
struct Outcome {
    uid: String,
    name: String,
    was_active: bool,
    end: End,
}

/// How the act ended for one member.
enum End {
    Done,
    Refused(Error),
    /// The member is the visitor, and the act is not for oneself.
    LeftOut,
}

impl Outcome {
    const fn is_done(&self) -> bool {
        matches!(self.end, End::Done)
    }

    const fn error(&self) -> Option<&Error> {
        match &self.end {
            End::Refused(error) => Some(error),
            End::Done | End::LeftOut => None,
        }
    }
}

/// The most members that one form acts on: a page of the list.
const SELECTED_MAX: usize = 200;
/// Calls that run at once: as many as one commit takes.
const AT_ONCE: usize = 64;
/// The most members whose ids a notice keeps for its Undo: it is a cookie.
const UNDO_MAX: usize = 50;

/// Acts on the selected members.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    // The button of a row names its member; the buttons of the bar act on the selected ones.
    let (word, of_row) = match visit.submitted("act").unwrap_or_default().split_once(' ') {
        Some((word, uid)) => (word, Some(uid)),
        None => (visit.submitted("act").unwrap_or_default(), None),
    };
    let act = Act::ALL.into_iter().find(|act| act.as_str() == word).ok_or(ErrorCode::BadInput)?;
    if visit.organization().is_none() && !matches!(act, Act::Suspend | Act::Activate) {
        return Err(ErrorCode::BadInput.into());
    }
    let selected = visit.submitted_all("uid").filter(|_| of_row.is_none());
    let sent = of_row.into_iter().chain(selected).flat_map(|text| text.split(','));
    let mut uids: Vec<&str> = sent.filter(|uid| !uid.is_empty()).collect();
    uids.dedup();
    if uids.len() > SELECTED_MAX {
        return Err(ErrorCode::TooLarge.into());
    }
    let role = visit.submitted("role_id").unwrap_or_default();
    let lacking = match act {
        _ if uids.is_empty() => Some(t.select_first),
        Act::GiveRole if role.is_empty() => Some(t.choose_role),
        _ => None,
    };
    if let Some(sentence) = lacking {
        let content = page(visit, components::notice(Tone::Bad, sentence, None)).await?;
        return Ok(content.status_of(&ErrorCode::BadInput.into()).into());
    }
    let is_only_oneself = uids.iter().all(|uid| *uid == visit.uid());
    if act == Act::TakeOut && !is_only_oneself && visit.submitted("confirm").is_none() {
        return confirm_take_out(visit, &uids).await;
    }
    let value = match act {
        Act::TakeOut => visit.organization().map_or("", |here| here.id.as_str()),
        _ => role,
    };
    let outcomes = perform(visit, act, &uids, value).await?;
    show(visit, act, &outcomes).await
}

/// Calls the operation for each member. Fails only if the session had ended before anything was done.
async fn perform(visit: &Visit, act: Act, uids: &[&str], value: &str) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(uids.len());
    for some in uids.chunks(AT_ONCE) {
        let done = join_all(some.iter().map(async |uid| {
            let before = visit.find(op("get_user").at(uid)).await.unwrap_or_default();
            let end = match act.leaves_out_oneself() && *uid == visit.uid() {
                true => End::LeftOut,
                false => visit.call(act.call(uid, value)).await.map_or_else(End::Refused, |_| End::Done),
            };
            let name = if before.is_null() { *uid } else { name_of(&before) };
            let was_active = before.is_null() || before["status"] == "active";
            Outcome { uid: (*uid).to_owned(), name: name.to_owned(), was_active, end }
        }));
        outcomes.extend(done.await);
    }
    let ended = outcomes.iter().filter_map(Outcome::error).find(|error| error.code.status() == 401);
    match ended {
        Some(ended) if !outcomes.iter().any(Outcome::is_done) => Err(ended.clone()),
        _ => Ok(outcomes),
    }
}

/// Tells what was done. If something was refused, the list is shown with each reason.
async fn show(visit: &Visit, act: Act, outcomes: &[Outcome]) -> Result<View> {
    let t = Words::of(visit.language);
    let (done, refused): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|one| one.is_done());
    let [one, many] = act.done(visit.language);
    let sentence = match done.as_slice() {
        [only] => fill(one, &[&only.name]),
        all => fill(many, &[&all.len()]),
    };
    // Undone is only what this form changed.
    let undone: Vec<&str> = match act {
        Act::Suspend => done.iter().filter(|one| one.was_active).map(|one| one.uid.as_str()).collect(),
        Act::Activate => done.iter().filter(|one| !one.was_active).map(|one| one.uid.as_str()).collect(),
        Act::GiveRole | Act::TakeOut => Vec::new(),
    };
    let inverse = if act == Act::Suspend { Act::Activate } else { Act::Suspend };
    let can_undo = !undone.is_empty() && visit.may(inverse.operation());
    if refused.is_empty() && (!can_undo || undone.len() <= UNDO_MAX) {
        let notice = Notice::new(sentence);
        let notice = match can_undo {
            true => notice.with_undo(back(visit), &[("act", inverse.as_str()), ("uid", &undone.join(","))]),
            false => notice,
        };
        return Ok(View::Redirect(back(visit), Some(notice)));
    }
    let undo = can_undo.then(|| {
        html! {
            form method="post" action=(visit.with_query(&[])) {
                (components::hidden_input("uid", &undone.join(",")))
                (components::button_named("act", inverse.as_str(), visit.frame().undo, Kind::Plain))
            }
        }
    });
    let above = html! {
        @if refused.is_empty() { (components::notice(Tone::Ok, &sentence, undo)) } @else {
            (results(visit, act, done.len(), &refused, undo))
        }
    };
    let content = match page(visit, above.clone()).await {
        // The session ended meanwhile, but what was done is told.
        Err(error) if error.code.status() == 401 && !done.is_empty() => Content::new(t.title, above),
        content => content?,
    };
    if !done.is_empty() {
        return Ok(content.into());
    }
    let error = refused.iter().find_map(|one| one.error().cloned());
    Ok(content.status_of(&error.unwrap_or_else(|| ErrorCode::BadInput.into())).into())
}

/// How many were done, and why each of the others was not.
fn results(visit: &Visit, act: Act, done: usize, refused: &[&Outcome], undo: Option<Markup>) -> Markup {
    let t = Words::of(visit.language);
    let (tone, text) = match done {
        0 => (Tone::Bad, t.none_done.to_owned()),
        _ => (Tone::Warn, fill(t.some_refused, &[&done, &refused.len()])),
    };
    let reason = |one: &Outcome| match one.error() {
        None => t.left_out.to_owned(),
        Some(error) if act == Act::GiveRole => errors::sentence(error, visit.language),
        Some(error) => sentence_of_act(visit, error),
    };
    html! {
        (components::notice(tone, &text, undo))
        ul class="results" {
            @for one in refused { li { strong { (one.name) } " – " (reason(one)) } }
        }
    }
}

/// Asks before several members are taken out, because their roles do not come back by an Undo.
async fn confirm_take_out(visit: &Visit, uids: &[&str]) -> Result<View> {
    let t = Words::of(visit.language);
    const NAMED_MAX: usize = 6;
    // Sent along, so that the result tells that the visitor was left out.
    let others: Vec<&&str> = uids.iter().filter(|uid| **uid != visit.uid()).collect();
    let named = match others.len() {
        0..=NAMED_MAX => {
            let users = join_all(others.iter().map(|uid| visit.call(op("get_user").at(uid)))).await;
            let users = users.into_iter().collect::<Result<Vec<_>>>()?;
            users.iter().map(|user| name_of(&user.data)).collect::<Vec<_>>().join(", ")
        }
        count => fill(t.members_of, &[&count]),
    };
    let sent = html! {
        (components::hidden_input("uid", &uids.join(",")))
        (components::hidden_input("act", Act::TakeOut.as_str()))
        (components::hidden_input("confirm", "1"))
    };
    let organization = visit.organization().map_or("", |here| here.name.as_str());
    Ok(Content::new(t.take_out, take_out_box(visit, &named, organization, sent, &visit.with_query(&[]))).into())
}
