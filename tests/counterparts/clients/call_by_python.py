"""Calls ten operations by a client that openapi-python-client generated: PACKAGE_FOLDER BASE_URL LOGIN PASSWORD.

Prints the operations that were called, one a line. Whatever is not as the document says is an exception.
"""

import importlib
import sys
from pathlib import Path


def main(folder: str, base_url: str, login: str, password: str) -> None:
    package = Path(folder)
    sys.path.insert(0, str(package.parent))
    client_module = importlib.import_module(f"{package.name}.client")
    models = importlib.import_module(f"{package.name}.models")

    def call(operation: str, **arguments: object) -> object:
        found = list(package.glob(f"api/*/{operation}.py"))
        assert len(found) == 1, f"{operation}: {found}"
        module = importlib.import_module(f"{package.name}.api.{found[0].parent.name}.{operation}")
        answer = module.sync_detailed(**arguments)
        assert answer.status_code == 200, f"{operation}: {answer.status_code} {answer.content!r}"
        assert answer.parsed is not None, f"{operation}: nothing was parsed of {answer.content!r}"
        print(operation)
        return answer.parsed

    public = client_module.Client(base_url=base_url)
    signed_in = call("login", client=public, body=models.LoginRequest(login=login, password=password))
    call("get_version", client=public)
    client = client_module.AuthenticatedClient(base_url=base_url, token=signed_in.data.access_token)

    me = call("get_me", client=client).data
    body = models.CreateMember(username="ida", email="ida@example.org", display_name="Ida Example")
    member = call("create_member", client=client, body=body).data
    assert call("get_member", client=client, id=member.id).data.username == "ida"
    assert call("list_members", client=client, keyword="ida", limit=5).data.total == 1
    body = models.CreateOrganization(org_code="generated", name="Generated")
    organization = call("create_organization", client=client, body=body).data
    call("link_member", client=client, id=member.id, org_id=organization.id)
    tenant = {"x_tenant_id": "generated"}
    role = call("create_role", client=client, body=models.CreateRole(key="editor", display_name="Editor"), **tenant).data
    assert role.id in [known.id for known in call("list_roles", client=client, **tenant).data.roles]
    call("assign_user_role", client=client, uid=member.id, body=models.AssignUserRole(role_id=role.id), **tenant)
    question = models.CheckRequest(uid=me.sub, permission="roster.member.list")
    call("check_permission", client=client, body=question)
    call("list_audit", client=client)


if __name__ == "__main__":
    main(*sys.argv[1:])
