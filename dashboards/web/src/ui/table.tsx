/** The map's values as a table: for those who prefer words, for screen readers, and for tests. */
import type { Value } from "../contract";
import { range } from "../format";
import { lang, t } from "../i18n";
import { colourOf, stepOf } from "../scales";
import * as state from "../state";
import { Coverage, Measure, coverageText } from "./parts";

export const windowOf = (value: Value): string =>
  range(lang.value, Date.parse(value.start), Date.parse(value.stop), state.coarse.value, state.zoneOfTime.value);

/** Order values from bad to good. */
export function rankOf(value: number): number {
  return state.scale.value.worst === "low" ? value : -value;
}

/** Every zone's value in words. In the map view only screen readers (and tests) meet it. */
export function ZoneTable() {
  const visible = state.view.value === "table";
  const scale = state.scale.value;
  const rows = [...state.shown.value.values()].sort((a, b) =>
    a.value === null || b.value === null ? Number(a.value === null) - Number(b.value === null) : rankOf(a.value) - rankOf(b.value),
  );
  const least = state.indicators.value.get(state.indicator.value ?? "")?.min_coverage;
  return (
    <div class={visible ? "zone-table" : "visually-hidden"}>
      <table data-testid="zones" data-indicator={state.indicator.value} data-window={state.windowName.value}>
        <caption class="visually-hidden">{t("table.caption", { indicator: state.indicatorTitle(state.indicator.value ?? "") })}</caption>
        <thead>
          <tr>
            <th scope="col">{t("table.zone")}</th>
            <th scope="col" class="num">
              {t("table.value")}
            </th>
            <th scope="col">{t("table.coverage")}</th>
            <th scope="col">{t("table.window")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((value) => {
            const drawn = !state.outdated(value) ? value.value : null;
            return (
              <tr
                key={value.zone}
                data-testid="zone"
                data-zone={value.zone}
                data-value={value.value ?? ""}
                data-start={value.start}
                data-revision={value.revision}
                data-step={drawn === null ? "" : stepOf(scale, drawn)}
                data-rendered={state.rendered.value.has(value.zone)}
                class={`${state.selection.value?.id === value.zone ? "chosen" : ""} ${drawn === null ? "old" : ""}`}
              >
                <th scope="row">
                  <span class="swatch" style={{ background: colourOf(scale, drawn, state.theme.value) }} />
                  {visible ? (
                    <button type="button" class="link" onClick={() => void (state.selection.value = { kind: "zone", id: value.zone })}>
                      {state.zoneName(value.zone)}
                    </button>
                  ) : (
                    state.zoneName(value.zone)
                  )}
                </th>
                <td class="num">
                  <Measure value={value.value} unit={value.unit} indicator={value.indicator} />
                </td>
                <td>
                  <Coverage share={value.coverage} title={coverageText(value)} {...(least === undefined ? {} : { least })} />
                </td>
                <td class="when">
                  {windowOf(value)}
                  {state.provisional(value) && <span class="dim"> · {t("value.provisional")}</span>}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
