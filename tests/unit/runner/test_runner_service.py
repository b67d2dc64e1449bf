async def test_whoami_sites_and_templates_without_any_site(start_runner, client):
    runner = await start_runner()
    ask = client(runner)
    assert (await ask.call("whoami"))["dcde_id"] == "dcde1000001"
    assert await ask.call("sites.list") == []
    assert isinstance(await ask.call("templates.list"), list)
