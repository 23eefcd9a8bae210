#!/usr/bin/env python3
"""A stateful stub of the part of SFTPGo's REST API v2 that Roster uses, and of its hooks: SFTPGo itself cannot be installed
from the registries that the tests use. Standard library only. It keeps the rules of SFTPGo that matter to clients: a PUT
replaces the whole user, quota 0 means no limit, an empty response to external authentication accepts, events are retried.

usage: fake_sftpgo.py PORT [--token-ttl SECONDS]...   prints its URL; ends when its standard input closes.
Beside the API, actions over SFTP: POST /lab/login|upload|delete|rename; GET /lab/log lists the hook calls.
POST /lab/behave {"fail":N,"status":S,"html":N,"hang":S,"forget_tokens":true,"hooks":{...}} causes or ends failures;
GET /lab/users lists all users, GET /lab/asked all requests to the API.
"""
import argparse, base64, json, re, secrets, sys, threading, time, urllib.error, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ap = argparse.ArgumentParser()
ap.add_argument("port", type=int); ap.add_argument("--admin", default="admin:labpass"); ap.add_argument("--api-key", default="labkeyid.labsecret")
for o in ("external-auth", "pre-login", "actions", "provider-hook"):
    ap.add_argument("--" + o, default="")
ap.add_argument("--execute-on", default="upload,delete,rename,pre-delete"); ap.add_argument("--header", action="append", default=[], help="KEY:VALUE sent with every hook call")
ap.add_argument("--fail", type=int, default=0, help="answer 500 to the first N API calls"); ap.add_argument("--slow", type=float, default=0)
ap.add_argument("--hook-wait", type=float, default=0.05); ap.add_argument("--token-ttl", type=int, default=1200)
A = ap.parse_args()
L, users, used, files, tokens, hooklog, conns, failn = threading.RLock(), {}, {}, {}, {}, [], [], [A.fail]
asked, ill = [], {"status": 500, "html": 0, "hang": 0}
PERMS = set("* list download upload overwrite delete delete_files delete_dirs rename rename_files rename_dirs create_dirs create_symlinks chmod chown chtimes copy".split())
now_ms = lambda: int(time.time() * 1000)


def call(url, body, retry):
    """Returns (status, text). Hooks for events are retried up to 3 times on connection errors, 429 and 5xx other than 501."""
    st, out = 0, ""
    for i in range(4 if retry else 1):
        r = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json", **dict(h.split(":", 1) for h in A.header)})
        try:
            with urllib.request.urlopen(r, timeout=20) as p:
                st, out = p.status, p.read(1 << 20).decode()
        except urllib.error.HTTPError as e:
            st, out = e.code, e.read(1 << 16).decode("utf-8", "replace")
        except OSError as e:
            st, out = 0, str(e)
        hooklog.append({"url": url, "status": st, "try": i + 1, "body": body})
        if not (st in (0, 429) or (st >= 500 and st != 501)):
            break
        time.sleep(A.hook_wait)
    return st, out


class Bad(Exception):
    def __init__(self, code, err, msg=""):
        self.code, self.err, self.msg = code, err, msg


def validate(u):
    if not isinstance(u, dict): raise Bad(400, "invalid JSON body")
    n = u.get("username") or ""
    if not n: raise Bad(400, "validation error: username is mandatory")
    n = n.strip()                                              # naming_rules 5: any character, spaces around trimmed
    for k, t in (("quota_size", int), ("quota_files", int), ("status", int), ("home_dir", str), ("username", str), ("permissions", dict), ("expiration_date", int)):
        if u.get(k) is not None and (not isinstance(u[k], t) or isinstance(u[k], bool)): raise Bad(400, f"json: cannot unmarshal {k}")
    if not u.get("home_dir"): raise Bad(400, "validation error: home_dir is mandatory")
    if not u["home_dir"].startswith("/"): raise Bad(400, "validation error: home_dir must be an absolute path")
    p = u.get("permissions") or {}
    if not p: raise Bad(400, "validation error: please grant some permissions to this user")
    if not p.get("/"): raise Bad(400, 'validation error: permissions for the root dir "/" must be set')
    for d, l in p.items():
        if not d.startswith("/"): raise Bad(400, "validation error: cannot set permissions for non absolute path")
        for x in l:
            if x not in PERMS: raise Bad(400, f'validation error: invalid permission: "{x}"')
    if u.get("status", 0) not in (0, 1): raise Bad(400, f"validation error: invalid user status: {u['status']}")
    return n


def fill(u, old=None):
    """An update replaces everything: an omitted field gets its zero value, except password, id, times and usage."""
    base = {"id": old["id"] if old else secrets.randbelow(1 << 30) + 1, "status": 0, "username": "", "expiration_date": 0, "home_dir": "", "uid": 0, "gid": 0, "max_sessions": 0,
            "quota_size": 0, "quota_files": 0, "permissions": {}, "upload_bandwidth": 0, "download_bandwidth": 0, "created_at": old["created_at"] if old else now_ms(), "updated_at": now_ms(),
            "last_login": old["last_login"] if old else 0, "filters": {"hooks": {"external_auth_disabled": False, "pre_login_disabled": False, "check_password_disabled": False}, "totp_config": {}},
            "filesystem": {"provider": 0}}
    keep = ("description", "email", "additional_info", "groups", "virtual_folders", "public_keys", "role")
    out = {**base, **{k: v for k, v in u.items() if k in base and k not in ("id", "created_at", "updated_at", "last_login")}, **{k: u[k] for k in keep if u.get(k)}}
    out["_password"] = u.get("password") or (old or {}).get("_password", "")
    return out


def show(u):
    s, f, t = used.get(u["username"], (0, 0, 0))
    out = {k: v for k, v in u.items() if k != "_password"}
    out["has_password"] = bool(u["_password"])
    if s or f or t: out.update(used_quota_size=s, used_quota_files=f, last_quota_update=t)
    return out


def event(u, action, path, size=0, status=1, target=""):
    e = {"action": action, "username": u["username"], "path": u["home_dir"] + path, "virtual_path": path, "fs_provider": 0, "status": status, "protocol": "SFTP", "ip": "127.0.0.1",
         "session_id": "SFTP_" + secrets.token_hex(10), "timestamp": time.time_ns(), "elapsed": 3}
    if size: e["file_size"] = size
    if target: e.update(target_path=u["home_dir"] + target, virtual_target_path=target)
    return e


def fs_hook(u, action, path, **k):
    if not A.actions or action not in A.execute_on.split(","): return True
    e = event(u, action, path, **k)
    if action.startswith("pre-"): return call(A.actions, e, True)[0] == 200    # synchronous: anything but 200 denies
    threading.Thread(target=call, args=(A.actions, e, True), daemon=True).start()
    return True


def provider_event(action, u):
    if A.provider_hook:
        q = urllib.parse.urlencode({"action": action, "username": "admin", "ip": "127.0.0.1", "object_type": "user", "object_name": u["username"], "timestamp": time.time_ns()})
        threading.Thread(target=call, args=(A.provider_hook + "?" + q, show(u), True), daemon=True).start()


def login(b):
    n, pw = b.get("username", ""), b.get("password", "")
    u = users.get(n)
    if A.external_auth:
        req = {"username": n, "ip": b.get("ip", "127.0.0.1"), "password": pw, "public_key": "", "protocol": b.get("protocol", "SSH"), "keyboard_interactive": "", "tls_cert": ""}
        if u: req["user"] = show(u)
        st, out = call(A.external_auth, req, False)                            # one try, 20 s
        if st != 200: raise Bad(401, "authentication failed", f"hook status {st}")
        if not out.strip():                                                    # empty 200: accepted as is, the offered password is stored
            if not u: raise Bad(401, "authentication failed", "unknown user")
            u["_password"] = pw
        else:
            try: j = json.loads(out)
            except ValueError: raise Bad(401, "authentication failed", "hook body is not JSON")
            if not j.get("username"): raise Bad(401, "authentication failed", "denied by hook")
            j.setdefault("password", pw); n = validate(j); users[n] = u = fill(j, users.get(n)); u["_password"] = pw
    elif A.pre_login:
        q = urllib.parse.urlencode({"login_method": "password", "ip": "127.0.0.1", "protocol": b.get("protocol", "SSH")})
        st, out = call(A.pre_login + "?" + q, show(u) if u else {"id": 0, "username": n}, False)
        if st not in (200, 204): raise Bad(401, "authentication failed", f"hook status {st}")
        if st == 200 and out.strip():
            j = json.loads(out); validate(j); users[j["username"]] = u = fill(j, users.get(j["username"]))
        elif not u: raise Bad(401, "authentication failed", "unknown user")
        if not u["_password"] or u["_password"] != pw: raise Bad(401, "authentication failed", "password")
    elif not u or not u["_password"] or u["_password"] != pw: raise Bad(401, "authentication failed", "password")
    if u["status"] != 1: raise Bad(401, "authentication failed", "user disabled")
    if 0 < u["expiration_date"] < now_ms(): raise Bad(401, "authentication failed", "expired")
    u["last_login"] = now_ms()
    return u


class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass

    def out(self, code, obj, **hd):
        b = obj.encode() if isinstance(obj, str) else json.dumps(obj, ensure_ascii=False).encode()
        self.send_response(code); self.send_header("Content-Type", "text/plain; charset=utf-8" if isinstance(obj, str) else "application/json; charset=utf-8"); self.send_header("Content-Length", str(len(b)))
        for k, v in hd.items(): self.send_header(k.replace("_", "-"), v)
        self.end_headers(); self.wfile.write(b)

    def go(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with L: code, obj, hd = self.route(raw)
        except Bad as e: code, obj, hd = e.code, {"message": e.msg, "error": e.err}, {}
        if ill["hang"] and not self.path.startswith("/lab/"): time.sleep(ill["hang"])
        self.out(code, obj, **hd)
    do_GET = do_POST = do_PUT = do_DELETE = go

    def auth(self):
        k, a = self.headers.get("X-SFTPGO-API-KEY"), self.headers.get("Authorization", "")
        if k is not None:
            p = k.split(".", 2); i, s = A.api_key.split(".", 1)
            if len(p) < 2 or p[0] != i: raise Bad(400, "the provided api key is not valid")
            if p[1] != s: raise Bad(401, "the provided api key cannot be authenticated")
            return True
        if a.startswith("Bearer ") and tokens.get(a[7:], 0) > time.time(): return False
        raise Bad(401, "Unauthorized")

    def route(self, raw):
        u = urllib.parse.urlsplit(self.path); q = dict(urllib.parse.parse_qsl(u.query)); m = self.command; p = u.path
        if p == "/healthz": return 200, "ok", {}
        js = lambda: json.loads(raw or b"{}")
        if p.startswith("/lab/"): return self.lab(p[5:], js())
        if not p.startswith("/api/v2/"): raise Bad(404, "Not Found", "Not Found")
        p = p[7:]
        asked.append({"method": m, "path": u.path, "query": q, "body": js()})
        if failn[0] > 0: failn[0] -= 1; raise Bad(ill["status"], "simulated failure")
        if ill["html"] > 0: ill["html"] -= 1; return 200, "<html><body>hello</body></html>", {}
        if p == "/token":
            want = "Basic " + base64.b64encode(A.admin.encode()).decode()
            if self.headers.get("Authorization") != want: raise Bad(401, "Unauthorized", "Unauthorized")
            t = secrets.token_urlsafe(32); e = time.time() + A.token_ttl; tokens[t] = e
            return 200, {"access_token": t, "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(e))}, {}
        bykey = self.auth()
        if p == "/version": return 200, {"version": "2.7.5", "build_date": "", "commit_hash": "", "features": []}, {}
        if p == "/connections" and m == "GET": return 200, conns, {}
        if p == "/apikeys" and bykey: raise Bad(403, "Forbidden")
        try:
            if p == "/users" and m == "GET":
                off, lim = int(q.get("offset", 0)), int(q.get("limit", 100))
                if not 1 <= lim <= 500 or off < 0: raise Bad(400, "limit is out of the 1-500 range")
                s = sorted(users, reverse=q.get("order") == "DESC")
                return 200, [show(users[n]) for n in s[off:off + lim]], {}
            if p == "/users" and m == "POST":
                b = js(); n = validate(b)
                if n in users: raise Bad(409, "duplicated key: username already exists")
                b["username"] = n; users[n] = fill(b); provider_event("add", users[n])
                return 201, show(users[n]), {"Location": "/api/v2/users/" + urllib.parse.quote(n, safe="")}
            if g := re.fullmatch(r"/users/([^/]+)", p):
                n = urllib.parse.unquote(g[1])
                if n not in users: raise Bad(404, "Not Found")
                if m == "GET": return 200, show(users[n]), {}
                if m == "PUT":
                    b = js(); b["username"] = n; validate(b); users[n] = fill(b, users[n]); provider_event("update", users[n])
                    if q.get("disconnect") == "1": conns[:] = [c for c in conns if c["username"] != n]
                    return 200, {"message": "User updated", "error": ""}, {}
                if m == "DELETE":
                    provider_event("delete", users.pop(n)); used.pop(n, None); conns[:] = [c for c in conns if c["username"] != n]
                    return 200, {"message": "User deleted", "error": ""}, {}
            if (g := re.fullmatch(r"/quotas/users/([^/]+)/usage", p)) and m == "PUT":
                n = urllib.parse.unquote(g[1]); b = js(); md = q.get("mode", "reset")
                s, f = b.get("used_quota_size", 0), b.get("used_quota_files", 0)
                if s < 0 or f < 0: raise Bad(400, "invalid used quota parameters, negative values are not allowed")
                if md not in ("add", "reset"): raise Bad(400, "invalid mode")
                if n not in users: raise Bad(404, "Not Found")
                if md == "add" and not (users[n]["quota_size"] > 0 or users[n]["quota_files"] > 0): raise Bad(400, "this user has no quota restrictions, only reset mode is supported")
                o = used.get(n, (0, 0, 0)) if md == "add" else (0, 0, 0); used[n] = (o[0] + s, o[1] + f, now_ms())
                return 200, {"message": "Quota updated", "error": ""}, {}
            if (g := re.fullmatch(r"/quotas/users/([^/]+)/scan", p)) and m == "POST":
                n = urllib.parse.unquote(g[1])
                if n not in users: raise Bad(404, "Not Found")
                mine = [v for (o, _), v in files.items() if o == n]; used[n] = (sum(mine), len(mine), now_ms())
                return 202, {"message": "Scan started", "error": ""}, {}
        except (ValueError, TypeError, AttributeError) as e:
            raise Bad(400, "invalid body: " + str(e))
        raise Bad(404, "Not Found", "Not Found")

    def lab(self, what, b):
        if what == "log": return 200, hooklog, {}
        if what == "users": return 200, {n: show(v) for n, v in users.items()}, {}
        if what == "asked": return 200, asked, {}
        if what == "behave":
            failn[0] = b.get("fail", failn[0])
            if b.get("forget_tokens"): tokens.clear()
            for k, v in b.get("hooks", {}).items(): setattr(A, k, v)
            for k in ("status", "html", "hang"): ill[k] = b.get(k, ill[k])
            return 200, {}, {}
        if what == "put":
            users[b["username"]] = fill(b, users.get(b["username"])); return 200, {}, {}
        if what == "login":
            u = login(b); conns.append({"username": u["username"], "connection_id": "SFTP_" + secrets.token_hex(8), "client_version": "lab", "remote_address": "127.0.0.1:1", "connection_time": now_ms(), "last_activity": now_ms(), "protocol": "SFTP", "active_transfers": []})
            return 200, show(u), {}
        u = users.get(b.get("username"))
        if not u or u["status"] != 1: raise Bad(403, "no session")
        n, path = u["username"], b["path"]; key = (n, path); s, f, t = used.get(n, (0, 0, 0)); new = key not in files
        can = set(u["permissions"].get("/", []))
        if what == "upload":
            if not can & {"*", "upload"} or (not new and not can & {"*", "overwrite"}): raise Bad(403, "permission denied")
            if (new and u["quota_files"] and f >= u["quota_files"]) or (u["quota_size"] and s >= u["quota_size"]): raise Bad(413, "denying write due to space limit")
            if not fs_hook(u, "pre-upload", path, size=files.get(key, 0)): raise Bad(403, "permission denied")
            size = int(b["size"]); room = u["quota_size"] - s + files.get(key, 0)
            if u["quota_size"] and size > room:
                fs_hook(u, "upload", path, status=3)
                if not new: used[n] = (s - files.pop(key), f - 1, now_ms())    # the file being written is removed
                raise Bad(413, "denying write due to space limit")
            fs_hook(u, "upload", path, size=size); used[n] = (s - files.get(key, 0) + size, f + new, now_ms()); files[key] = size
        elif what == "delete":
            if new: raise Bad(404, "Not Found")
            if not fs_hook(u, "pre-delete", path, size=files[key]): raise Bad(403, "permission denied")
            z = files.pop(key); used[n] = (s - z, f - 1, now_ms()); fs_hook(u, "delete", path, size=z)
        elif what == "rename":
            if new: raise Bad(404, "Not Found")
            files[(n, b["target"])] = files.pop(key); fs_hook(u, "rename", path, target=b["target"])
        else: raise Bad(404, "Not Found")
        return 200, {"message": "ok", "error": ""}, {}


class S(ThreadingHTTPServer):
    daemon_threads = True; request_queue_size = 128


server = S(("127.0.0.1", A.port), H)
print(json.dumps({"url": "http://127.0.0.1:%d" % server.server_address[1]}), flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
