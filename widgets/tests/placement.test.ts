import { describe, expect, test } from "vitest";
import { placed, type Side } from "../src/view/placement";

const SIDES: readonly Side[] = ["right", "left", "above", "below"];
const room = { width: 400, height: 300 };
const size = { width: 120, height: 60 };

describe("a tooltip stands", () => {
  test("to the right of its box, level with its middle", () => {
    expect(placed({ x: 50, y: 100, width: 20, height: 10 }, size, room, SIDES)).toEqual({ x: 80, y: 75 });
  });
  test("to the left at the right edge, and within the room at the top and bottom", () => {
    expect(placed({ x: 370, y: 0, width: 20, height: 10 }, size, room, SIDES)).toEqual({ x: 240, y: 0 });
    expect(placed({ x: 370, y: 290, width: 20, height: 10 }, size, room, SIDES)).toEqual({ x: 240, y: 240 });
  });
  test("above or below a box as wide as the room", () => {
    expect(placed({ x: 0, y: 200, width: 400, height: 10 }, size, room, SIDES).y).toBe(130);
    expect(placed({ x: 0, y: 20, width: 400, height: 10 }, size, room, SIDES).y).toBe(40);
  });
  test("never over its box, wherever the box is", () => {
    for (let x = 0; x <= 380; x += 10) {
      for (let y = 0; y <= 290; y += 10) {
        const box = { x, y, width: 20, height: 10 };
        const at = placed(box, size, { width: 400, height: 300 }, SIDES);
        const across = at.x + size.width <= x || at.x >= x + 20;
        const down = at.y + size.height <= y || at.y >= y + 10;
        expect(across || down).toBe(true);
      }
    }
  });
});
