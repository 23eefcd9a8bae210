//! Request bodies as operations take them: checked against their schema in the document, then read.

use std::sync::Arc;

use hyper::body::Bytes;
use poem::{Request, RequestBody};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::{media, request_validator};
use crate::kernel::authn::caller::Guard;
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::intake::Limit;

/// The body of a request; how long it may be depends on whether its caller is known by now.
pub async fn read(request: &Request) -> Result<&Bytes> {
    let context = request.data::<Arc<RequestContext>>().ok_or_else(|| Error::internal("no request context"))?;
    if !context.is_known() {
        return context.body.read(Limit::Public, None).await;
    }
    let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
    let party = context.party(&guard.snapshot.load());
    context.body.read(Limit::Ordinary, party).await
}

/// Fails unless the body is of one of these media types; `message` says what to send.
pub fn require_media_type(request: &Request, types: &[&str], message: &'static str) -> Result<()> {
    let essence = request.content_type().and_then(|text| text.split(';').next()).unwrap_or("").trim();
    if types.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::MediaType).with_message(message))
}

/// A request body: checked against its own schema in the document, all faults at once, then read.
pub struct Body<T>(pub T);

impl<T: ParseFromJSON> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or("").trim();
        essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ParseFromJSON> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self(parse(request).await?.ok_or_else(request_validator::empty)?))
    }
}

poem_openapi::impl_apirequest_for_payload!(Body<T>, T: ParseFromJSON);

/// The body of a request; `None` where there is none.
async fn parse<T: ParseFromJSON>(request: &Request) -> Result<Option<T>> {
    let context = request.data::<Arc<RequestContext>>().ok_or_else(|| Error::internal("no request context"))?;
    let validator = request.data::<request_validator::Shared>().ok_or_else(|| Error::internal("no validator"))?;
    let bytes = read(request).await?;
    let Some(intake) = context.body.intake() else { return Ok(None) };
    if bytes.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let value = request_validator::parse_within(bytes, intake.nodes_max)?;
        let faults = validator.check_body(&T::name(), &value)?;
        if !faults.is_empty() {
            return Err(Error::fields(faults));
        }
        // The schema accepts a value that the type rejects. This is a bug, but the caller gets a 400.
        T::parse_from_json(Some(value))
            .map_err(|e| Error::field("body", "cannot be read").with_source(e.into_message()))
    };
    intake.read_long(bytes.len(), parse).await.map(Some)
}

/// A body that may be missing: some clients and proxies drop one, and some operations do without.
pub struct OptionalBody<T>(std::marker::PhantomData<fn() -> T>);

impl<T: ParseFromJSON> OptionalBody<T> {
    /// The body, checked like any other; `None` where there is none.
    pub async fn read(&self, request: &Request) -> Result<Option<T>> {
        parse(request).await
    }
}

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for OptionalBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content: Vec<MetaMediaType> = vec![media("application/json", T::schema_ref())];
        Some(MetaRequest { description: Some("May be left out"), content, required: false })
    }

    async fn from_request(_: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(std::marker::PhantomData))
    }
}
