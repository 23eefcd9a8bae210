//! Request bodies of operations: validated against their schema in the OpenAPI document, then parsed.

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

/// Reads the body of a request. Its limit depends on whether the caller is authenticated by now.
pub async fn read(request: &Request) -> Result<&Bytes> {
    let context = request.data::<Arc<RequestContext>>().ok_or_else(|| Error::internal("no request context"))?;
    if !context.is_known() {
        return context.body.read(Limit::Public, None).await;
    }
    let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
    let party = context.party(&guard.snapshot.load());
    context.body.read(Limit::Ordinary, party).await
}

/// Fails with `media_type` unless the body has one of these media types; `message` says what to send.
pub fn require_media_type(request: &Request, types: &[&str], message: &'static str) -> Result<()> {
    let essence = request.content_type().and_then(|text| text.split(';').next()).unwrap_or("").trim();
    if types.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::MediaType).with_message(message))
}

/// A JSON request body: validated against its schema in the OpenAPI document, with all faults reported, then parsed.
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

/// Reads, validates and parses the body of a request; `None` if it is empty.
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
        // An error here means that the schema accepts a value that the type rejects: a bug, but the caller gets a 400.
        T::parse_from_json(Some(value)).map_err(|e| Error::field("body", "is not valid").with_source(e.into_message()))
    };
    intake.parse_long(bytes.len(), parse).await.map(Some)
}

/// An optional JSON body: some operations do not need one, and some clients and proxies drop it.
pub struct OptionalBody<T>(std::marker::PhantomData<fn() -> T>);

impl<T: ParseFromJSON> OptionalBody<T> {
    /// Reads, validates and parses the body; `None` if it is empty.
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
        Some(MetaRequest { description: Some("Optional"), content, required: false })
    }

    async fn from_request(_: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(std::marker::PhantomData))
    }
}
