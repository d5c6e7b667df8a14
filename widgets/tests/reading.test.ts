import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { validate } from "../src/generated/validate";
import { PayloadError, readPayload } from "../src/grid/reading";
import { changes, fixture, fixtures, schema } from "./fixtures";

const valid = new Ajv2020({ allowUnionTypes: true, useDefaults: false }).compile(schema());

/** The values of a matrix; for compact values those that `numpy` decodes, which the file contains too. */
function numbers(values: unknown): unknown {
  return Array.isArray(values) ? values.flat() : (values as { numbers: unknown }).numbers;
}

describe("files shared with Python's tests", () => {
  test.each(fixtures("valid"))("valid %s: schema and reader accept it", (_, text) => {
    const given = JSON.parse(text);
    expect(valid(given)).toBe(true);
    const read = readPayload(text);
    const flat = given.panels.map((panel: { values: unknown }) => numbers(panel.values));
    const back = read.panels.map((panel) => Array.from(panel.values, (v) => (Number.isNaN(v) ? null : v)));
    expect(back).toEqual(flat);
  });

  test("the model's layer and head numbers of a selection are read", () => {
    const { layerNumbers, headNumbers } = readPayload(fixture("valid/selection"));
    expect([layerNumbers, headNumbers]).toEqual([
      [3, 4],
      [5, 1, 2],
    ]);
  });

  test.each(fixtures("invalid"))("invalid %s: schema and reader refuse it", (_, text) => {
    expect(valid(JSON.parse(text))).toBe(false);
    expect(() => readPayload(text)).toThrow(PayloadError);
    expect(() => readPayload(JSON.parse(text))).toThrow(PayloadError);
  });

  test.each(fixtures("invalid-beyond-schema"))(
    "%s: the reader refuses it with a short one-line message",
    (_, text) => {
      try {
        readPayload(text);
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(PayloadError);
        expect(String(error)).not.toContain("\n");
        expect(String(error).length).toBeLessThan(300);
      }
    },
  );
});

describe("changed valid files, for which Python has the same verdict", () => {
  test.each(changes())("%s", (_, given, change) => {
    expect(valid(given)).toBe(change.schema);
    expect(validate(given)).toBe(change.schema);
    expect(accepted(given)).toBe(change.reader);
    expect(accepted(JSON.stringify(given))).toBe(change.reader);
  });

  function accepted(source: unknown): boolean {
    try {
      readPayload(source);
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(PayloadError);
      expect(String(error).length).toBeLessThan(300);
      return false;
    }
  }
});

describe("errors", () => {
  const minimal = () => JSON.parse(fixture("valid/minimal"));

  test("name the invalid field", () => {
    const found = minimal();
    found.panels.push({ values: [[0.1, "0.2"]] });
    expect(() => readPayload(found)).toThrow(
      'panels[1].values[0][1] violates the schema rule type, got "0.2"',
    );
  });

  test("for a newer file recommend an upgrade", () => {
    expect(() => readPayload({ ...minimal(), version: 2 })).toThrow("pip install -U headnb");
  });

  test.each([undefined, null, 3, [], "", "{"])("are raised for %j", (source) => {
    expect(() => readPayload(source)).toThrow(PayloadError);
  });

  test.each(["title", "kv_heads", "interval_level", "scale", "progress"])(
    "are raised for a %s of null",
    (name) => {
      expect(() => readPayload({ ...minimal(), [name]: null })).toThrow(name);
    },
  );
});

test("defaults are filled in", () => {
  const found = readPayload(fixture("valid/unknown-fields"));
  expect([found.kvHeads, found.scale, found.intervalLevel]).toEqual([2, { low: 0, high: 0.1 }, 0.95]);
});

test("a statistic named __proto__ is validated like any other", () => {
  const found = JSON.parse(fixture("valid/minimal"));
  found.panels[0].statistics = JSON.parse('{"__proto__": {"value": 1}}');
  readPayload(found);
  found.panels[0].statistics = JSON.parse('{"__proto__": {"value": "1"}}');
  expect(() => readPayload(found)).toThrow("panels[0].statistics.__proto__.value");
});

test("the text below a grid is read unchanged from the payload", () => {
  const found = JSON.parse(fixture("valid/minimal"));
  Object.assign(found, { columns: [{ label: "Gini", help: "evenness" }] });
  Object.assign(found.panels[0], {
    statistics_line: "Gini 0.1",
    reliability_line: "Reliability 1",
    cells: ["0.1"],
  });
  const { columns, panels } = readPayload(found);
  expect([
    columns[0]?.label,
    panels[0]?.statisticsLine,
    panels[0]?.reliabilityLine,
    panels[0]?.cells,
  ]).toEqual(["Gini", "Gini 0.1", "Reliability 1", ["0.1"]]);
});

test("the length of a text is counted in code points, as in Python", () => {
  const title = "😀".repeat(2000);
  expect(readPayload({ ...JSON.parse(fixture("valid/minimal")), title }).title).toBe(title);
});

describe("packed matrices", () => {
  const packed = (change: object) => ({
    ...{ version: 1, kind: "difference", units: "", layers: 2, heads: 2 },
    panels: [
      {
        values: { float32: "AACAPwAAAMAAAMB/AAAAPw==", factor: 0.5, heads: 2 },
        significant: { uint8: "AQAAAQ==", factor: 1, heads: 2 },
        ...change,
      },
    ],
  });
  test("of float32 and of marks have their values", () => {
    const [panel] = readPayload(packed({})).panels;
    expect([...(panel?.values ?? [])]).toEqual([0.5, -1, Number.NaN, 0.25]);
    expect([...(panel?.significant ?? [])]).toEqual([1, 0, 0, 1]);
  });
  test("with another mark, an infinite value or too few numbers are refused", () => {
    const infinite = { float32: "AACAfwAAAMAAAMB/AAAAPw==", factor: 1, heads: 2 };
    for (const change of [
      { significant: { uint8: "AgAAAQ==", factor: 1, heads: 2 } },
      { significant: { factor: 1, heads: 2 } },
      { values: infinite },
      { values: { ...infinite, heads: 4 } },
      { low: { float16: "AAA=", factor: 1, heads: 2 } },
    ])
      expect(() => readPayload(packed(change))).toThrow(/not a head grid/);
  });
});
