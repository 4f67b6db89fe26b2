/** One card a domain: its headline number with all that belongs to it, and the domain's other indicators. */
import { DOMAINS, type DeviceState, type Domain, type Tile } from "../contract";
import { number, range } from "../format";
import { lang, t, tr } from "../i18n";
import { colourOf, scaleOf } from "../scales";
import * as state from "../state";
import { DOMAIN_ICONS } from "./icons";
import { Coverage, Measure, Provisional, Spark } from "./parts";

function windowText(tile: Tile): string {
  if (!tile.start || !tile.stop) return tr("window", tile.window);
  const [start, stop] = [Date.parse(tile.start), Date.parse(tile.stop)];
  return range(lang.value, start, stop, state.coarse.value, state.zoneOfTime.value);
}

function Worst({ tile }: { tile: Tile }) {
  const worst = tile.worst;
  if (!worst) return null;
  const scale = scaleOf(tile.indicator, [worst.value], state.theme.value);
  const label = scale.worst === null ? t("tile.peak") : t("tile.worst");
  const show = () => {
    state.chooseIndicator(tile.indicator, tile.window);
    state.selection.value = { kind: "zone", id: worst.zone };
  };
  return (
    <button type="button" class="worst" onClick={show} data-testid="tile-worst" data-zone={worst.zone}>
      <span class="worst-label">{label}</span>
      <span class="swatch" style={{ background: colourOf(scale, worst.value, state.theme.value) }} aria-hidden="true" />
      <span class="worst-zone">{state.zoneName(worst.zone)}</span>
      <Measure value={worst.value} unit={tile.unit} indicator={tile.indicator} />
    </button>
  );
}

function combined(tile: Tile): string {
  const zones = t("tile.zones", { count: number(lang.value, tile.zones) }, tile.zones);
  return t(`tile.${tile.combine}`, { zones });
}

function Headline({ tile }: { tile: Tile }) {
  const title = state.indicatorTitle(tile.indicator, tile.title);
  const least = state.indicators.value.get(tile.indicator)?.min_coverage;
  return (
    <div class="headline">
      <div class="headline-value">
        <div class="headline-number" title={combined(tile)} data-testid="tile-value" data-indicator={tile.indicator} data-value={tile.value ?? ""}>
          <Measure value={tile.value} unit={tile.unit} indicator={tile.indicator} class="big" />
        </div>
        <div class="headline-when">
          <span title={t("value.window")}>{windowText(tile)}</span>
          <Coverage share={tile.coverage} {...(least === undefined ? {} : { least })} />
          <Provisional is={tile.provisional} />
        </div>
      </div>
      <Spark values={tile.spark} label={title} />
    </div>
  );
}

function Others({ tiles }: { tiles: Tile[] }) {
  return (
    <ul class="others">
      {tiles.map((tile) => (
        <li key={`${tile.indicator} ${tile.window}`}>
          <button
            type="button"
            title={`${state.indicatorTitle(tile.indicator, tile.title)} · ${windowText(tile)}`}
            aria-pressed={state.indicator.value === tile.indicator}
            onClick={() => state.chooseIndicator(tile.indicator, tile.window)}
            data-testid="tile-other"
            data-indicator={tile.indicator}
          >
            <span class="others-name">{tr("short", tile.indicator, tile.title)}</span>
            <Measure value={tile.value} unit={tile.unit} indicator={tile.indicator} />
          </button>
        </li>
      ))}
    </ul>
  );
}

const STATES: readonly DeviceState[] = ["live", "late", "silent", "never"];

function Devices({ counts }: { counts: Record<DeviceState, number> }) {
  return (
    <ul class="fleet" aria-label={t("tile.devices")}>
      {STATES.filter((name) => name === "live" || counts[name] > 0).map((name) => (
        <li key={name} class={`state ${name}`} title={`${number(lang.value, counts[name])} ${t(`state.${name}`)}`}>
          <span class="state-mark" aria-hidden="true" />
          {number(lang.value, counts[name])}
          <span class="visually-hidden">{t(`state.${name}`)}</span>
        </li>
      ))}
    </ul>
  );
}

function Card({ domain }: { domain: Domain }) {
  const tile = state.headlineOf(domain);
  const Icon = DOMAIN_ICONS[domain];
  const chosen = state.domain.value === domain;
  const counts = state.summary.value?.domains.find((item) => item.domain === domain)?.devices;
  const others = state
    .tilesOf(domain)
    .filter((item) => item.indicator !== tile?.indicator && item.start !== null)
    .slice(0, 3);
  return (
    <article class={`tile ${chosen ? "chosen" : ""}`} data-testid={`tile-${domain}`} aria-labelledby={`tile-${domain}`}>
      <div class="tile-head">
        <Icon />
        <h2 id={`tile-${domain}`}>
          <button
            type="button"
            class="tile-choose"
            aria-pressed={chosen}
            title={tile ? t("tile.show", { title: state.indicatorTitle(tile.indicator, tile.title) }) : undefined}
            onClick={() => {
              state.chooseDomain(domain);
              if (tile) state.chooseIndicator(tile.indicator, tile.window);
            }}
          >
            {t(`domain.${domain}`)}
          </button>
        </h2>
        <span class="tile-title">{tile && state.indicatorTitle(tile.indicator, tile.title)}</span>
        {counts && <Devices counts={counts} />}
      </div>
      {tile?.start ? <Headline tile={tile} /> : <div class="tile-waiting">{state.summary.value ? t("tile.waiting") : ""}</div>}
      {(tile?.worst || others.length > 0) && (
        <div class="tile-foot">
          {tile?.worst && (
            <div class="tile-row">
              <Worst tile={tile} />
              <span class="combined">{combined(tile)}</span>
            </div>
          )}
          {others.length > 0 && <Others tiles={others} />}
        </div>
      )}
    </article>
  );
}

export function Tiles() {
  return (
    <section class="tiles" aria-label={t("app.title")} data-testid="tiles">
      {DOMAINS.map((domain) => (
        <Card key={domain} domain={domain} />
      ))}
    </section>
  );
}

