-- Statistics of the ledger.

create index quota_ledger_at on quota_ledger (at);
create index quota_ledger_organization_id on quota_ledger (organization_id, at);
