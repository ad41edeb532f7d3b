//! Every call of the contract, as it is meant to be used, on both kinds of site.

mod instances;
mod paging;
mod registration;
mod request_ids;
mod switch;
