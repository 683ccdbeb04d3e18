//! Misfortune on demand: what the next answers shall suffer.
//!
//! Faults wait in queues, one for each user and one for everybody. A request takes the first fault that fits it from
//! its user's queue, or else from everybody's. What does not fit (a token fault, on a calendar request) waits on.

use std::collections::{BTreeMap, VecDeque};

use kalends_core::time::Timestamp;

use super::error::{ApiError, oauth_error};
use super::quota::limited;
use crate::http::{Delivery, Response, http_date};

/// The most faults that may wait in one queue.
pub const FAULTS_WAITING_MAX: usize = 10_000;

/// One misfortune. Unless said otherwise it befalls one request and is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A calendar request is refused with Google's JSON: any status and reason.
    Error {
        /// The HTTP status.
        status: u16,
        /// `errors[].reason`, such as `backendError`, `quotaExceeded`, `fullSyncRequired`.
        reason: String,
    },
    /// A calendar request is refused as one too many, for any of Google's reasons.
    Limited {
        /// 403 or 429.
        status: u16,
        /// `errors[].reason`: `rateLimitExceeded`, `userRateLimitExceeded`, `quotaExceeded`, `dailyLimitExceeded`.
        reason: String,
        /// A `Retry-After` header.
        retry_after: Option<RetryAfter>,
    },
    /// A calendar request gets an HTML page of a front end.
    Html {
        /// The HTTP status; 502 and 503 are seen.
        status: u16,
    },
    /// Every calendar request until that time is refused with `rateLimitExceeded`.
    LimitedUntil {
        /// When it is over.
        until: Timestamp,
        /// 403 or 429.
        status: u16,
        /// A `Retry-After` header, in seconds.
        retry_after_s: Option<u32>,
    },
    /// 401 `authError`, although the token is good.
    Unauthorized,
    /// The access tokens the user has at this moment end, and so this request gets 401.
    AccessTokenExpires,
    /// The connection breaks after half of the answer.
    CutBody,
    /// The answer is not JSON any more: its last byte is missing, but it is announced so.
    MalformedJson,
    /// The request is not even looked at; no answer.
    LostRequest,
    /// The request has its effect; no answer.
    LostAnswer,
    /// The next last page has no `nextSyncToken`.
    NoSyncToken,
    /// The next page of events is empty but has a next page.
    EmptyPage,
    /// The first item on the next page of events is no event; a page without items stays as it is.
    UnreadableItem,
    /// The token endpoint refuses.
    Token {
        /// The HTTP status.
        status: u16,
        /// `error`, such as `invalid_grant`, `invalid_client`, `internal_failure`.
        error: String,
    },
}

/// A `Retry-After` header, in either of its forms (RFC 9110, 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many seconds.
    Seconds(u32),
    /// At that time, as a date.
    Date(Timestamp),
}

impl RetryAfter {
    fn text(self) -> String {
        match self {
            RetryAfter::Seconds(seconds) => seconds.to_string(),
            RetryAfter::Date(at) => http_date(at),
        }
    }
}

/// What kind of request looks for its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Events,
    CalendarList,
    Push,
    Token,
}

impl Fault {
    fn fits(&self, place: Place) -> bool {
        match self {
            Fault::Token { .. } => place == Place::Token,
            Fault::NoSyncToken | Fault::EmptyPage | Fault::UnreadableItem => place == Place::Events,
            Fault::CutBody | Fault::MalformedJson | Fault::LostRequest | Fault::LostAnswer => true,
            _ => place != Place::Token,
        }
    }

    /// The answer, if this fault makes one without looking at the request.
    pub(crate) fn answer(&self) -> Option<Response> {
        match self {
            Fault::Error { status, reason } => {
                let domain = match *status {
                    403 | 429 => "usageLimits",
                    410 => "calendar",
                    _ => "global",
                };
                let message = format!("Fault on demand: {reason}");
                Some(ApiError::new(*status, domain, reason, &message).response())
            }
            Fault::Limited {
                status,
                reason,
                retry_after,
            } => {
                let error = ApiError::new(*status, "usageLimits", reason, "Limit exceeded");
                let mut response = error.response();
                if let Some(retry_after) = retry_after {
                    let header = ("retry-after".to_owned(), retry_after.text());
                    response.headers.push(header);
                }
                Some(response)
            }
            Fault::Html { status } => {
                let page = format!(
                    "<!DOCTYPE html><html lang=en><title>Error {status} (Server Error)</title>"
                );
                Some(Response::html(*status, &page))
            }
            Fault::LimitedUntil {
                status,
                retry_after_s,
                ..
            } => {
                let mut response = limited(*status);
                if let Some(seconds) = retry_after_s {
                    let header = ("retry-after".to_owned(), seconds.to_string());
                    response.headers.push(header);
                }
                Some(response)
            }
            Fault::Unauthorized | Fault::AccessTokenExpires => {
                Some(ApiError::invalid_credentials().response())
            }
            Fault::LostRequest => Some(Response::lost()),
            Fault::Token { status, error } => Some(oauth_error(*status, error, "")),
            Fault::CutBody
            | Fault::MalformedJson
            | Fault::LostAnswer
            | Fault::NoSyncToken
            | Fault::EmptyPage
            | Fault::UnreadableItem => None,
        }
    }

    /// What becomes of an answer that was made.
    pub(crate) fn spoil(&self, mut response: Response) -> Response {
        match self {
            Fault::CutBody => {
                response.body.truncate(response.body.len() / 2);
                response.delivery = Delivery::CutShort;
                response
            }
            Fault::MalformedJson => {
                response.body.pop();
                response
            }
            Fault::LostAnswer => Response::lost(),
            Fault::UnreadableItem => {
                response.body = with_unreadable_item(response.body);
                response
            }
            _ => response,
        }
    }
}

fn with_unreadable_item(body: Vec<u8>) -> Vec<u8> {
    let Ok(mut page) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return body;
    };
    let items = page.get_mut("items").and_then(|items| items.as_array_mut());
    match items.and_then(|items| items.first_mut()) {
        Some(first) => *first = serde_json::json!({ "id": first["id"], "start": 12, "status": [] }),
        None => return body,
    }
    serde_json::to_vec(&page).expect("what was JSON is JSON")
}

/// All faults that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    of_all: VecDeque<Fault>,
    of_user: BTreeMap<u32, VecDeque<Fault>>,
}

impl Faults {
    /// How many faults wait in a user's queue, or in everybody's.
    pub(crate) fn waiting(&self, user: Option<u32>) -> usize {
        match user {
            Some(user) => self.of_user.get(&user).map_or(0, VecDeque::len),
            None => self.of_all.len(),
        }
    }

    /// Whether no fault waits for a request of this user.
    pub(crate) fn spare(&self, user: u32) -> bool {
        self.of_all.is_empty() && !self.of_user.contains_key(&user)
    }

    /// Whether no fault waits for the token endpoint.
    pub(crate) fn spare_tokens(&self) -> bool {
        self.of_all.is_empty()
    }

    /// Forgets all that wait.
    pub(crate) fn clear(&mut self) {
        self.of_all.clear();
        self.of_user.clear();
    }

    /// Puts a fault at the end of a user's queue, or of everybody's.
    pub(crate) fn push(&mut self, user: Option<u32>, fault: Fault) {
        let queue = match user {
            Some(user) => self.of_user.entry(user).or_default(),
            None => &mut self.of_all,
        };
        queue.push_back(fault);
    }

    /// Puts a fault back that did not find what it spoils.
    pub(crate) fn push_back_unused(&mut self, user: u32, fault: Fault) {
        self.of_user.entry(user).or_default().push_front(fault);
    }

    /// The fault for a request; it is used up, unless it lasts.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        user: Option<u32>,
        place: Place,
    ) -> Option<Fault> {
        if let Some(user) = user
            && let Some(queue) = self.of_user.get_mut(&user)
        {
            let fault = take_from(queue, now, place);
            if queue.is_empty() {
                self.of_user.remove(&user);
            }
            if fault.is_some() {
                return fault;
            }
        }
        take_from(&mut self.of_all, now, place)
    }
}

fn take_from(queue: &mut VecDeque<Fault>, now: Timestamp, place: Place) -> Option<Fault> {
    queue.retain(|fault| !matches!(fault, Fault::LimitedUntil { until, .. } if *until <= now));
    let at = queue.iter().position(|fault| fault.fits(place))?;
    if matches!(queue[at], Fault::LimitedUntil { .. }) {
        return Some(queue[at].clone());
    }
    queue.remove(at)
}
