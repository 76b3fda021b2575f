//! Tucano's data plane: takes HTTP requests to the processes of services.
//!
//! It knows routes, not services' life: the controller's discovery says which processes there are, in a
//! table that is followed over a unix socket and swapped in whole. While the controller is down the last
//! table stays in force; it is also kept in a file, so that it outlives the balancer.
//!
//! - [`settings`], [`limits`]: the command line; every bound has a default and a flag
//! - [`follow`]: the route table, from the controller and from the file
//! - [`plane`]: what requests share; [`table`] is the compiled routes, [`choose`] the round robin
//! - [`client`]: connections of clients: accepted, judged strictly, timed
//! - [`proxy`]: the way of a request; [`exchange`] sends it until a process answers; [`target`], [`headers`],
//!   [`request_body`], [`response_body`], [`refusal`] are its parts, [`tunnel`] what follows an upgrade
//! - [`upstream`]: processes: connections, pool, ejection
//! - [`metrics`], [`admin`]: numbers, for those who ask
//! - [`daemon`]: build, run, drain; [`lock`]: only one of them; [`errors`]: why not, as text
//!
//! On disk: the lock file (`--lock`), the last route table (`--routes`), the admin socket (`--admin`).

pub mod admin;
pub mod choose;
pub mod client;
pub mod daemon;
pub mod errors;
pub mod exchange;
pub mod follow;
pub mod headers;
pub mod limits;
pub mod lock;
pub mod metrics;
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
