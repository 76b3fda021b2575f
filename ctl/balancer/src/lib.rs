//! Tucano's data plane: an HTTP load balancer in front of the processes of services.
//!
//! It knows routes and nothing of a service's life cycle. The controller's discovery publishes the route
//! table; the balancer follows it over a unix socket and swaps it in as a whole. While the controller is
//! down, the last table stays in force. A copy in a file survives restarts of the balancer.
//!
//! ```text
//!  client ──► front ──► http1 ──► proxy ──► back ──► process        a thread: connections, pools, buffers, counters
//!                                   │
//!                                 core                              rules without IO
//!                                   ▲
//!  controller ──► follow ──► plane: the routes in force             shared by all threads, only read by them
//! ```
//!
//! - [`settings`], [`limits`]: the command line; every limit has a default and a flag
//! - [`follow`]: the route table, from the controller and from the cached file; [`plane`]: what all threads share
//! - [`core`]: what is decided, without IO: routes, choice, ejection, retries, limits
//! - [`http1`]: HTTP/1.1 without IO: the parser, and what is written to the other side
//! - [`front`]: client connections: accept, admission, read, write; [`back`]: connections to processes
//! - [`proxy`]: one request from head to response
//! - [`worker`]: one thread: its routes, buffers and timers
//! - [`metrics`], [`admin`]: counters and the admin socket
//! - [`daemon`]: build, run, drain; [`detach`]: drain without a parent; [`lock`]: single instance; [`errors`]: error chains as text
//!
//! Another protocol of clients is another front, which makes a [`proxy::request::Request`] of what it receives; another
//! protocol of processes is another back, which a [`proxy::attempt::Attempt`] is made over.
//!
//! On disk: the lock file (`--lock`), the cached route table (`--routes`), the admin socket (`--admin`).

pub mod admin;
pub mod back;
pub mod core;
pub mod daemon;
pub mod detach;
pub mod errors;
pub mod follow;
pub mod front;
pub mod http1;
pub mod limits;
pub mod lock;
pub mod metrics;
pub mod plane;
pub mod proxy;
pub mod settings;
pub mod worker;
