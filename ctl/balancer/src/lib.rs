//! Tucano's data plane: an HTTP load balancer in front of the processes of services.
//!
//! It knows routes and nothing of a service's life cycle. The controller's discovery publishes the route
//! table; the balancer follows it over a unix socket and swaps it in as a whole. While the controller is
//! down, the last table stays in force. A copy in a file survives restarts of the balancer.
//!
//! - [`settings`], [`limits`]: the command line; every limit has a default and a flag
//! - [`follow`]: the route table, from the controller and from the cached file
//! - [`plane`]: state shared by all requests; [`table`]: the compiled routes; [`choose`]: round robin
//! - [`client`]: client connections: accept, strict validation, timeouts
//! - [`proxy`]: one request from head to response; [`exchange`]: attempts and retries; [`target`], [`path`], [`headers`],
//!   [`request_body`], [`response_body`], [`interim`], [`refusal`]: its parts; [`tunnel`]: after an upgrade
//! - [`waiting`]: requests without a process to go to
//! - [`upstream`]: connections to processes: connect, pool, ejection
//! - [`metrics`], [`admin`]: counters and the admin socket
//! - [`daemon`]: build, run, drain; [`detach`]: drain without a parent; [`lock`]: single instance; [`errors`]: error chains as text
//!
//! On disk: the lock file (`--lock`), the cached route table (`--routes`), the admin socket (`--admin`).

pub mod admin;
pub mod choose;
pub mod client;
pub mod daemon;
pub mod detach;
pub mod errors;
pub mod exchange;
pub mod follow;
pub mod headers;
pub mod interim;
pub mod limits;
pub mod lock;
pub mod metrics;
pub mod path;
pub mod plane;
pub mod proxy;
pub mod refusal;
pub mod request_body;
pub mod response_body;
pub mod settings;
pub mod table;
pub mod target;
pub mod tunnel;
pub mod upstream;
pub mod waiting;
