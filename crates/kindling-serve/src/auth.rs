//! Who may ask.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::{ServeOptions, Shared};

/// Lets a request through that may ask.
pub(crate) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match has_key(&shared.options, request.headers()).and_then(|()| is_of_here(&shared.options, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Who has the key, if there is one. The comparison takes as long whatever is wrong with a key of the right length.
fn has_key(options: &ServeOptions, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &options.api_key else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| bool::from(given.ct_eq(key.as_bytes()))) { Ok(()) } else { Err(ApiError::no_key()) }
}

/// No page of another site: its browser says where the page is from, and calls a server at this machine by the site's name where the site
/// has made this machine's address its own (DNS rebinding).
fn is_of_here(options: &ServeOptions, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(header::HOST);
    if let (Some(origin), Some(host)) = (text(header::ORIGIN), &host)
        && origin.split_once("://").is_none_or(|(_, from)| from != host)
    {
        return Err(ApiError::foreign(&origin));
    }
    match host.filter(|_| options.is_local && options.api_key.is_none()) {
        Some(host) if !is_local(&host) => Err(ApiError::foreign(&host)),
        _ => Ok(()),
    }
}

/// Whether this is an address or a name of the machine itself.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
