//! The SFTPGo hooks, which use SFTPGo's own JSON without the envelope.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poem::http::{StatusCode, header};
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::registry::{
    MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, MetaSecurityScheme, Registry,
};
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, OpenApi};
use serde_json::{Value, json};

use crate::integrations::sftpgo::account::Account;
use crate::integrations::sftpgo::event::EventOutcome;
use crate::integrations::sftpgo::file_events;
use crate::integrations::sftpgo::login::{self, Login};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Guard;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Failure, Tag, body, request_validator};

fn object() -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(MetaSchema::new("object")))
}

/// A hook request; unknown fields are ignored, for newer SFTPGo versions.
struct HookBody(Value);

impl<'a> ApiExtractor<'a> for HookBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: Some("As sent by SFTPGo; unknown fields are ignored"),
            content: vec![MetaMediaType { content_type: "application/json", schema: object() }],
            required: true,
        })
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let body = request_validator::parse(body::read(request).await?)?;
        if body.is_object() { Ok(Self(body)) } else { Err(Error::new(ErrorCode::MalformedBody).into()) }
    }
}

/// The caller of a hook: SFTPGo with the hook key, or an internal service if `INTERNAL` is set.
struct Hook<const INTERNAL: bool>(Identity);

impl<const INTERNAL: bool> Hook<INTERNAL> {
    /// Fails unless the hook key matches, or the internal secret where it is accepted.
    fn require(guard: &Guard, key: Option<&str>, internal: Option<&str>) -> Result<()> {
        match (guard.is_hook_key(key), key, internal) {
            (Some(true), ..) => Ok(()),
            (_, None, Some(offered)) => guard.require_internal(offered),
            (None, ..) if !INTERNAL => {
                Err(Error::new(ErrorCode::NotConfigured).with_message("set hooks.sftpgo_key_file to use this hook"))
            }
            _ if INTERNAL => Err(ErrorCode::HookKey.into()),
            _ => Err(Error::new(ErrorCode::HookKey).with_message("send the hook key as X-Hook-Key")),
        }
    }
}

impl<'a, const INTERNAL: bool> ApiExtractor<'a> for Hook<INTERNAL> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = |ty, description, name, key_in, scheme| MetaSecurityScheme {
            ty,
            description: Some(description),
            name,
            key_in,
            scheme,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        let about = "The key of `hooks.sftpgo_key_file`";
        registry.create_security_scheme("hook_key", scheme("apiKey", about, Some("X-Hook-Key"), Some("header"), None));
        let about = "The same key as the password in the hook's URL; the username is ignored";
        registry.create_security_scheme("hook_password", scheme("http", about, None, None, Some("basic")));
    }

    fn security_schemes() -> Vec<&'static str> {
        let own = ["hook_key", "hook_password"].into_iter();
        own.chain(INTERNAL.then_some("internal_secret")).collect()
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
        let context = request.data::<Arc<RequestContext>>().ok_or_else(|| Error::internal("no request context"))?;
        // A header that is not text matches no key.
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
        let key = header("x-hook-key").map(str::to_owned);
        let key = key.or_else(|| header(header::AUTHORIZATION.as_str()).and_then(password_of));
        Self::require(guard, key.as_deref(), header("x-internal-secret").filter(|_| INTERNAL))?;
        Ok(Self(Identity::service(context.clone())))
    }
}

/// Returns the password of an HTTP Basic header.
fn password_of(authorization: &str) -> Option<String> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    let bytes = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(bytes).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// A response in SFTPGo's format.
enum HookResponse {
    /// 204: SFTPGo keeps the user as it is.
    Nothing,
    Json(Value),
}

impl IntoResponse for HookResponse {
    fn into_response(self) -> Response {
        match self {
            Self::Nothing => Response::builder().status(StatusCode::NO_CONTENT).finish(),
            Self::Json(body) => Response::builder().content_type("application/json").body(body.to_string()),
        }
    }
}

impl ApiResponse for HookResponse {
    fn meta() -> MetaResponses {
        let one = |status, description, content| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content,
            headers: Vec::new(),
        };
        let json = vec![MetaMediaType { content_type: "application/json", schema: object() }];
        MetaResponses {
            responses: vec![
                one(200, "In SFTPGo's format, without the envelope", json),
                one(204, "SFTPGo keeps the user as it is", Vec::new()),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

type Answer = Result<HookResponse, Failure>;

crate::document! {
    authenticate_for_sftpgo: [NotConfigured];
    prepare_for_sftpgo: [NotConfigured];
    tell_of_sftpgo_file: [
        VideoPath, VideosFull, MemberSuspended, QuotaExceeded, OrganizationQuotaExceeded, NotConfigured,
    ];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/hooks/sftpgo", tag = "Tag::Sftpgo")]
impl Api {
    /// Authenticate an SFTPGo user
    ///
    /// SFTPGo's external authentication hook. Returns the whole user if the login is allowed, and `{"username":""}`
    /// otherwise. The password is the member's, or one of its API keys with the scope `videos:write`; if a second
    /// factor is required, only an API key is accepted. A public key is accepted if the SFTPGo user lists it.
    /// Keyboard-interactive logins and client certificates are not accepted on their own. Failures are throttled as at
    /// sign-in. Only the hook key is accepted here.
    #[oai(path = "/auth", method = "post", operation_id = "authenticate_for_sftpgo")]
    async fn authenticate_for_sftpgo(&self, _caller: Hook<false>, body: HookBody) -> Answer {
        let user = login::sign_in(&self.app, Login::from_body(&body.0)).await?;
        Ok(HookResponse::Json(user.map_or_else(|| json!({"username": ""}), Value::Object)))
    }

    /// Update an SFTPGo user before login
    ///
    /// SFTPGo's pre-login hook. Returns the whole user if it must change, and 204 otherwise, also for users that belong
    /// to no member. The user of an erased member is returned with `status` 0.
    #[oai(path = "/pre-login", method = "post", operation_id = "prepare_for_sftpgo")]
    async fn prepare_for_sftpgo(&self, _caller: Hook<true>, body: HookBody) -> Answer {
        let user: Account = body.0.as_object().cloned().unwrap_or_default();
        Ok(login::pre_login(&self.app, &user)
            .await?
            .map_or(HookResponse::Nothing, |user| HookResponse::Json(Value::Object(user))))
    }

    /// Report a file event
    ///
    /// SFTPGo's file action hook. `upload` registers a video or changes its size, `rename` and `copy` follow it,
    /// `delete` and `rmdir` free its bytes; `pre-upload` is refused if no byte is free, unless it overwrites a video.
    /// For a new video the plugins of the owner's organizations are called before and after the upload
    /// (`video.register`): a denied upload gets 403 and is not registered. After a failed `upload`, the remaining part
    /// of the file counts if there is a media root and the file is in the local file system. The owner is the member
    /// whose SFTPGo username is `username` (not the member's own username); the file is `virtual_path` in that member's
    /// folder. A name with control characters, a backslash or U+FFFD is rejected; a name that matches
    /// `videos.ignored_names` is not a video. A repeated event changes nothing, and events can arrive in any order:
    /// their `timestamp` determines the order. An event that is not counted gets 200 with `ignored` and the reason,
    /// because SFTPGo does not retry after any other response below 500.
    #[oai(path = "/events", method = "post", operation_id = "tell_of_sftpgo_file")]
    async fn tell_of_sftpgo_file(&self, caller: Hook<true>, body: HookBody) -> Answer {
        Ok(HookResponse::Json(match file_events::handle(&self.app, &caller.0, &body.0).await? {
            EventOutcome::Done => json!({"status": "ok"}),
            EventOutcome::Ignored(why) => json!({"status": "ignored", "reason": why}),
        }))
    }
}
