// Proxies from the environment: requests of both kinds go through them, and around them where NO_PROXY says so.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { inspect } from "node:util";
import { hubSettings } from "../../src/hub/environment.ts";
import { saying, withHub, resolveModel } from "./fixture.ts";

/** A proxy for plain http, and the addresses that it was asked for; `https` gets status 407. */
async function withProxy(work: (url: string, seen: string[]) => Promise<void>): Promise<void> {
  const seen: string[] = [];
  const proxy = createServer((asked, answer) => {
    seen.push(asked.url!);
    const { headers, method } = asked;
    const forward = request(asked.url!, { headers, method }, (response) => {
      answer.writeHead(response.statusCode!, response.headers);
      response.pipe(answer);
    });
    forward.on("error", () => answer.destroy());
    asked.pipe(forward);
  });
  proxy.on("connect", ({ url }, socket) => {
    seen.push(`CONNECT ${url}`);
    socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  try {
    await work(`127.0.0.1:${(proxy.address() as AddressInfo).port}`, seen);
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
}

for (const name of ["HTTP_PROXY", "http_proxy"])
  test(`${name}: listings and files come through the proxy, redirects too`, () =>
    withHub({}, ({ hub, requested, with: settingsFor }) =>
      withProxy(async (proxy, seen) => {
        await resolveModel("some-org/tiny", settingsFor({ [name]: `http://${proxy}` }));
        assert.equal(seen.length, requested().length);
        assert.ok(seen.some((url) => url.startsWith(`${hub.url}/api/models/some-org/tiny/`)));
        assert.ok(seen.some((url) => /^http:\/\/localhost:\d+\/blob\//.test(url)));
      }),
    ));

test("NO_PROXY names hosts that are asked directly", () =>
  withHub({}, ({ requested, with: settingsFor }) =>
    withProxy(async (proxy, seen) => {
      await resolveModel(
        "some-org/tiny",
        settingsFor({ HTTP_PROXY: proxy, NO_PROXY: "example.org, localhost" }),
      );
      assert.equal(seen.length, requested().length - 1);
      assert.ok(!seen.some((url) => url.includes("localhost")));
    }),
  ));

test("a hub behind https is reached through a tunnel; a proxy that refuses it is told at once", () =>
  withHub({}, ({ with: settingsFor }) =>
    withProxy(async (proxy, seen) => {
      const env = { HF_ENDPOINT: "https://hub.invalid", HTTPS_PROXY: proxy };
      await assert.rejects(
        resolveModel("some-org/tiny", settingsFor(env)),
        saying(/cannot reach https:\/\/hub.invalid .*407.*check the connection, the proxy/),
      );
      assert.deepEqual(seen, ["CONNECT hub.invalid:443"]);
    }),
  ));

test("a proxy that is not there, and an address that is none, are told; no password shows", async () => {
  await withHub({}, ({ with: settingsFor }) =>
    assert.rejects(
      resolveModel("some-org/tiny", settingsFor({ HTTP_PROXY: "http://127.0.0.1:1" })),
      saying(/no network: cannot reach .*the proxy/),
    ),
  );
  const settings = hubSettings({ HTTPS_PROXY: "http://user:secret@proxy:3128" }, "/");
  assert.ok(!(inspect(settings, { depth: 9 }) + JSON.stringify(settings)).includes("secret"));
  for (const address of ["socks5://user:secret@proxy:1080", "http://"])
    assert.throws(
      () => hubSettings({ HTTP_PROXY: address }, "/").proxies?.reveal(),
      (error: Error) =>
        /http_proxy holds no address/.test(error.message) && !/secret/.test(inspect(error)),
    );
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const before = timers();
  await withHub({}, ({ with: settingsFor }) =>
    assert.rejects(
      resolveModel("some-org/tiny", settingsFor({ HTTP_PROXY: "http://" })),
      saying(/http_proxy holds no address/),
    ),
  );
  assert.equal(timers(), before, "nothing holds up the end of the program");
});
