// Calls operations by openapi-fetch with the types that openapi-typescript generated: BASE_URL LOGIN PASSWORD.
// A use of anything that is not in the document does not compile.
import createClient from "openapi-fetch";
import type { components, paths } from "./document.js";

const [baseUrl, login, password] = process.argv.slice(2) as [string, string, string];
const open = createClient<paths>({ baseUrl });

const signedIn = await open.POST("/auth/login", { body: { login, password } });
if (!signedIn.data) throw new Error(`login: ${signedIn.error.detail}`);
const api = createClient<paths>({
  baseUrl,
  headers: { authorization: `Bearer ${signedIn.data.data.access_token}` },
});

const created = await api.POST("/admin/members", { body: { username: "uma", email: "uma@example.org" } });
if (!created.data) throw new Error(created.error.message);
const member: components["schemas"]["Member"] = created.data.data;

const found = await api.GET("/admin/members", { params: { query: { keyword: "uma", limit: 10 } } });
if (found.data?.data.items[0]?.id !== member.id) throw new Error("the member is not found again");

const missing = await api.GET("/permissions/roles/{id}", {
  params: { path: { id: "0198c1d2-a4b0-7e1f-8c3d-000000000000" }, header: { "X-Tenant-ID": "platform" } },
});
// The type of a failure lists the operation's own failures.
const words: Record<"role_not_found", string> = { role_not_found: "as it should" };
if (missing.error?.detail !== "role_not_found") throw new Error(`another failure: ${missing.error?.detail}`);
console.log(words[missing.error.detail]);
