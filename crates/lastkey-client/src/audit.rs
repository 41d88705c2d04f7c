//! The audit log: records, receipts, checkpoints, files, witnesses.
//!
//! Room      `client`.

use http::Method;
use lastkey_wire::native::audit::{
    AddWitnessRequest, AuditCheckpointReply, AuditQuery, AuditReceiptReply, AuditRecordsReply,
    RemoveWitnessRequest, WitnessesReply,
};

use crate::{
    call::{Call, escape},
    client::Client,
    error::Error,
};

const WITNESSES: &str = "/v1/audit/witnesses";

impl Client {
    /// Records of the audit log that match.
    pub fn audit_records(&self, query: &AuditQuery) -> Call<'_, (), AuditRecordsReply> {
        let path = "/v1/audit/records".to_owned();
        Call::route(self.transport(), Method::GET, path)
            .with_query("from", query.from)
            .with_query("limit", query.limit)
            .with_query("newest_first", query.newest_first.then_some(true))
            .with_query("key", query.key.as_ref())
            .with_query("who", query.who.as_ref())
            .with_query("action", query.action.as_ref())
            .with_query("result", query.result.as_ref())
            .with_query("request", query.request.as_ref())
            .with_query("since", query.since)
            .with_query("until", query.until)
            .with_query("wait_seconds", query.wait_seconds)
    }

    /// The proof that a record is in the log; it is named by its number or by its request.
    pub fn audit_receipt(&self, record: &str) -> Call<'_, (), AuditReceiptReply> {
        let path = format!("/v1/audit/records/{}/receipt", escape(record));
        Call::route(self.transport(), Method::GET, path)
    }

    /// A signed checkpoint of everything that is recorded by now.
    pub fn audit_checkpoint(&self) -> Call<'_, (), AuditCheckpointReply> {
        Call::route(self.transport(), Method::GET, "/v1/audit/checkpoint".to_owned())
    }

    /// A file of the log, as C2SP tlog-tiles names it; `None` when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn audit_file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let segments: Vec<_> = name.split('/').map(escape).collect();
        self.transport().file(&format!("/v1/audit/tlog/{}", segments.join("/"))).await
    }

    /// The witnesses of the log, and the logs that are witnessed.
    pub fn list_witnesses(&self) -> Call<'_, (), WitnessesReply> {
        Call::route(self.transport(), Method::GET, WITNESSES.to_owned())
    }

    /// Names a witness, or a log to be witnessed.
    pub fn add_witness(
        &self,
        request: AddWitnessRequest,
    ) -> Call<'_, AddWitnessRequest, WitnessesReply> {
        Call::route(self.transport(), Method::POST, WITNESSES.to_owned()).with_body(request)
    }

    /// Removes a witness, or a log that is witnessed.
    pub fn remove_witness(&self, key: &str) -> Call<'_, RemoveWitnessRequest, WitnessesReply> {
        let request = RemoveWitnessRequest { key: key.to_owned() };
        Call::route(self.transport(), Method::DELETE, WITNESSES.to_owned()).with_body(request)
    }
}
