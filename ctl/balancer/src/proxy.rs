//! Handles one request: finds its service, forwards it to a process, returns the response.

use std::sync::Arc;

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE},
    http::request,
    upgrade::OnUpgrade,
};

use tokio::time::timeout;

use crate::{
    client::{
        Client,
        io::PLACEHOLDER_METHOD,
        state::{ActiveRequest, UpgradeOutcome},
    },
    exchange::{Answer, Forwarder},
    headers::{self, Forwarded},
    interim::InterimResponses,
    plane::DataPlane,
    refusal::Refusal,
    request_body::SharedBody,
    response_body::{Exchange, ResponseBody},
    table::Service,
    target::Target,
    tunnel,
};

/// Answers one request of `client` with a process's response, or with the reason why there is none.
pub async fn answer(
    plane: &Arc<DataPlane>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let active = client.state.begin();
    let has_body = !request.body().is_end_stream();
    let response = match RoutedRequest::find(plane, client, request).await {
        Ok(routed) => routed.answer(plane, client, &active).await,
        Err(refusal) => {
            plane.clients.refused();
            closing_if(has_body, refusal.into())
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        active.decide(UpgradeOutcome::Http);
    }
    response.map(|body| body.with_active_request(active))
}

/// A request and the service it is for.
struct RoutedRequest {
    service: Arc<Service>,
    target: Target,
    head: request::Parts,
    body: SharedBody,
    upgrade: Option<Upgrade>,
    expects_continue: bool,
}

/// A requested change of protocol.
struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl RoutedRequest {
    async fn find(
        plane: &Arc<DataPlane>,
        client: &Client,
        mut request: Request<Incoming>,
    ) -> Result<Self, Refusal> {
        let expects_continue = check_request(client, &request)?;
        let target = Target::of(&request)?;
        wait_for_routes(plane, client).await?;
        let service = find_service(plane, &target)?;
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (mut head, body) = request.into_parts();
        let body = SharedBody::new(body, &plane.limits);
        let upgrade = headers::strip_request(&mut head.headers)?
            .filter(|protocol| may_upgrade(&head, protocol, &body))
            .map(|protocol| Upgrade {
                protocol,
                client: on_upgrade,
            });
        let mut routed = Self {
            service,
            target,
            head,
            body,
            upgrade,
            expects_continue,
        };
        routed.expects_continue &=
            routed.head.version == Version::HTTP_11 && !routed.body.is_ended();
        routed.set_forwarding_headers(plane, client);
        Ok(routed)
    }

    /// Sets the headers that the process receives.
    fn set_forwarding_headers(&mut self, plane: &DataPlane, client: &Client) {
        let headers = &mut self.head.headers;
        headers.insert(HOST, self.target.host_header.clone());
        let forwarded = Forwarded {
            client: client.address.ip(),
            host: &self.target.host_header,
            trust: plane.trust_forwarded,
        };
        headers::add_forwarded(headers, forwarded);
        if let Some(upgrade) = &self.upgrade {
            headers::set_upgrade(headers, upgrade.protocol.clone());
        }
        if self.expects_continue {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        if self.body.is_chunked() {
            // Without this, hyper sends GET and HEAD without their body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }

    async fn answer(
        self,
        plane: &Arc<DataPlane>,
        client: &Client,
        active: &ActiveRequest,
    ) -> Response<ResponseBody> {
        let stats = self.service.stats.clone();
        let counted = stats.begin_request();
        let body = self.body.clone();
        let response = match self.forward(plane, client, active).await {
            Ok(response) => response,
            Err(refusal) => refusal.into(),
        };
        stats.answered(response.status());
        let is_http = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        let response = closing_if(is_http && !body.is_ended(), response);
        response.map(|body| body.with_in_flight(counted))
    }

    async fn forward(
        self,
        plane: &Arc<DataPlane>,
        client: &Client,
        active: &ActiveRequest,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let interim = InterimResponses::new(
            client.state.clone(),
            self.head.version,
            self.expects_continue,
            plane.limits.max_interim_responses,
        );
        let (service, upgrade) = (self.service.clone(), self.upgrade);
        let forwarder = Forwarder::new(
            plane,
            client,
            self.service,
            self.target,
            self.head,
            self.body.clone(),
            interim.clone(),
        );
        let Answer {
            mut response,
            connection,
        } = forwarded(forwarder, &interim).await?;
        let invalid = || Refusal::InvalidResponse(service.name.clone());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or_else(invalid)?;
            let counted = service.stats.begin_tunnel();
            let process = hyper::upgrade::on(&mut response);
            active.decide(UpgradeOutcome::Tunnel);
            let in_flight = connection.into_in_flight();
            tunnel::start(plane, upgrade.client, process, (counted, in_flight));
            return switching_response(response, upgrade.protocol).map_err(|_| invalid());
        }
        sanitize_response(&mut response).map_err(|_| invalid())?;
        let exchange = Exchange {
            connection,
            request: self.body,
            plane: plane.clone(),
        };
        Ok(response.map(|body| ResponseBody::upstream(body, exchange)))
    }
}

/// Announces the close after a response that comes before the end of the request: the rest is not read.
fn closing_if(closes: bool, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if closes {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// The answer, once the client has been sent all interim responses.
async fn forwarded(
    forwarder: Forwarder<'_>,
    interim: &InterimResponses,
) -> Result<Answer, Refusal> {
    let answer = forwarder.run().await;
    interim.wait_written().await;
    answer
}

/// Refuses what no target accepts. Returns whether the client waits for `100 Continue`.
fn check_request(client: &Client, request: &Request<Incoming>) -> Result<bool, Refusal> {
    if request.method().as_str() == PLACEHOLDER_METHOD
        && let Some(malformed) = client.state.refused()
    {
        return Err(malformed.into());
    }
    if client.state.is_over_limit() {
        return Err(Refusal::TooManyConnections);
    }
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    headers::expects_continue(request.headers()).map_err(|_| Refusal::Expectation)
}

/// A balancer that has just started has no routes for a moment.
async fn wait_for_routes(plane: &DataPlane, client: &Client) -> Result<(), Refusal> {
    let mut changes = plane.changes();
    if plane.table().version().is_some() {
        return Ok(());
    }
    let Ok(_waiter) = plane.waiting.enter(plane.limits.head_len(), &plane.limits) else {
        return Err(Refusal::NoRoutes);
    };
    let has_routes =
        async { while plane.table().version().is_none() && changes.changed().await.is_ok() {} };
    // What is answered without routes is decided by the caller.
    timeout(plane.limits.routes_timeout, has_routes).await.ok();
    match client.is_gone() {
        true => Err(Refusal::ClientGone),
        false => Ok(()),
    }
}

fn find_service(plane: &DataPlane, target: &Target) -> Result<Arc<Service>, Refusal> {
    let table = plane.table();
    match table.find(&target.host, target.path()) {
        Some(service) => Ok(service.clone()),
        None if table.version().is_none() => Err(Refusal::NoRoutes),
        None => Err(Refusal::UnknownService(target.host.clone())),
    }
}

/// h2c is not forwarded: a tunnel is not inspected, so a client could reach any host through it.
/// An upgrade request must have no body, so that the point where the protocol changes is unambiguous.
fn may_upgrade(head: &request::Parts, protocol: &HeaderValue, body: &SharedBody) -> bool {
    let names_h2c = |protocol: &str| {
        let mut names = protocol.split(',').map(str::trim);
        names.any(|name| name.to_ascii_lowercase().starts_with("h2"))
    };
    head.version == Version::HTTP_11
        && body.is_ended()
        && protocol.to_str().is_ok_and(|protocol| !names_h2c(protocol))
}

fn switching_response(
    mut response: Response<Incoming>,
    asked: HeaderValue,
) -> Result<Response<ResponseBody>, headers::BadHeader> {
    let protocol = response.headers().get(UPGRADE).cloned().unwrap_or(asked);
    headers::strip_response(response.headers_mut())?;
    response.headers_mut().remove(CONTENT_LENGTH);
    headers::set_upgrade(response.headers_mut(), protocol);
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|_| ResponseBody::text("")))
}

/// Validates a process's response and removes what must not be forwarded.
fn sanitize_response(response: &mut Response<Incoming>) -> Result<(), headers::BadHeader> {
    let status = response.status();
    let wants_upgrade = response.headers().get(UPGRADE).cloned();
    headers::strip_response(response.headers_mut())?;
    *response.version_mut() = Version::HTTP_11;
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    // 426 must name the required protocol (RFC 9110, section 15.5.22).
    if let (StatusCode::UPGRADE_REQUIRED, Some(protocol)) = (status, wants_upgrade) {
        headers::set_upgrade(response.headers_mut(), protocol);
    }
    Ok(())
}
