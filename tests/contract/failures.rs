//! The part of [`coverage`](super::coverage) about conflicts, and about failures of our own.

use kallima_webhooks::domain::token::Scope;
use sea_orm::ConnectionTrait as _;

use super::{
    coverage::{Ids, Trial},
    obligations::{Operation, operations},
};
use crate::support::app::eventually;

impl Trial {
    /// The state in which the operation returns 409, by its name.
    pub(super) async fn conflict(&mut self, operation: &Operation) {
        if !operation.statuses().contains(&"409".to_owned()) {
            return;
        }
        let ids = self.ids().await;
        let mut body = self.body(operation).unwrap();
        match operation.id.as_str() {
            "create_webhook" => {
                let ask = || self.ask(operation, &ids, "").json(&body);
                while ask().send().await.status == 201 {}
            }
            "retry_delivery" => drop(
                self.app
                    .delete(&format!("/v1/webhooks/{}", ids.webhook))
                    .await
                    .expect(204),
            ),
            "publish_event" => {
                body["id"] = "evt_01JBAAAA00000000000000000C".into();
                self.ask(operation, &ids, "").json(&body).send().await.expect(202);
                body["data"]["job_id"] = "0190a000-0000-7000-8000-00000000000c".into();
            }
            // Their conflicts are those of an idempotency key.
            "update_webhook" | "test_webhook" | "replay_webhook" | "create_dashboard_link" => return,
            other => panic!("{other} returns 409, and this test has no state for that"),
        }
        let ask = self.ask(operation, &ids, "").json(&body);
        self.try_out(operation, ask).await.expect_problem(409, "conflict");
    }

    /// Every status that is our own fault: a missing table, a database that is gone.
    pub(super) async fn failures(&mut self) {
        let beside = self.app.database.connect().await;
        // A token that no node has looked up yet.
        self.app.token = self.app.new_token(Some(self.app.organization), Scope::ALL).await.0;
        beside
            .execute_unprepared("ALTER TABLE tokens RENAME TO mislaid")
            .await
            .unwrap();
        for operation in operations().into_iter().filter(|operation| operation.scope().is_some()) {
            let ask = self.ask(&operation, &Ids::of_nobody(), "");
            self.try_out(&operation, ask)
                .await
                .expect_problem(500, "internal_error");
        }
        beside
            .execute_unprepared("ALTER TABLE mislaid RENAME TO tokens")
            .await
            .unwrap();
        self.app.db.clone().close().await.unwrap();
        // A probe returns the last known state, which is updated a little later.
        eventually(async || (self.app.get("/readyz").await.status != 200).then_some(())).await;
        for operation in operations()
            .into_iter()
            .filter(|operation| operation.statuses().contains(&"503".to_owned()))
        {
            let ask = self.ask(&operation, &Ids::of_nobody(), "");
            self.try_out(&operation, ask)
                .await
                .expect_problem(503, "service_unavailable");
        }
    }
}
