import importlib
import types

import latentserve_client


def test_all_lists_the_imported_names():
    public = {
        name
        for name, value in vars(latentserve_client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert sorted(latentserve_client.__all__) == sorted(public)


def test_every_public_name_is_documented():
    for name in latentserve_client.__all__:
        value = getattr(latentserve_client, name)
        if isinstance(value, type):
            assert value.__doc__, name
            methods = [v for k, v in vars(value).items() if not k.startswith("_") and callable(v)]
            assert all(method.__doc__ for method in methods), name


def test_sync_and_async_have_the_same_methods():
    import inspect

    for name, method in vars(latentserve_client.Client).items():
        if name.startswith("_"):
            continue
        twin = getattr(latentserve_client.AsyncClient, name)
        assert list(inspect.signature(method).parameters) == list(
            inspect.signature(twin).parameters
        ), name


def test_public_modules_import_alone():
    for name in ("digits", "grid", "noise", "demo", "cli"):
        importlib.import_module(f"latentserve_client.{name}")
