/** Place of a tooltip next to the box that it explains, so that it never covers the box. */

import type { Box, Point } from "../grid/layout";

export type Side = "right" | "left" | "below" | "above";

const AWAY = 10;

/**
 * The top left corner of a tooltip inside a room that starts at (0, 0): on the first side of the box where it fits, else
 * on the last one, where it may reach out of the room.
 */
export function placed(
  box: Box,
  size: Pick<Box, "width" | "height">,
  room: Pick<Box, "width" | "height">,
  sides: readonly Side[],
): Point {
  const { width, height } = size;
  const across = Math.max(Math.min(box.x, room.width - width), 0);
  const down = Math.max(Math.min(box.y + (box.height - height) / 2, room.height - height), 0);
  const corners: Record<Side, Point> = {
    right: { x: box.x + box.width + AWAY, y: down },
    left: { x: box.x - AWAY - width, y: down },
    below: { x: across, y: box.y + box.height + AWAY },
    above: { x: across, y: box.y - AWAY - height },
  };
  const fits = ({ x, y }: Point) => x >= 0 && y >= 0 && x + width <= room.width && y + height <= room.height;
  const side = sides.find((one) => fits(corners[one])) ?? sides.at(-1) ?? "right";
  return corners[side];
}
