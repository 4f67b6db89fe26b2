import { DOMAINS } from "../contract";
import { ago, clock, day } from "../format";
import { LANGS, type Lang, lang, t } from "../i18n";
import { mayOperate, session, signOut } from "../session";
import * as state from "../state";
import { DOMAIN_ICONS, Mark, Moon, Screen, Sun } from "./icons";
import { IntakeButton } from "./intake";
import { Segments, domainTitle } from "./parts";

const THEMES = [
  { id: "system", icon: Screen },
  { id: "light", icon: Sun },
  { id: "dark", icon: Moon },
] as const;

function Connection() {
  const connection = state.connection.value;
  const age = state.dataAge.value;
  const level = connection === "live" && (state.stale.value || state.behind.value) ? "warn" : connection;
  return (
    <div class={`conn ${level}`} data-testid="connection" data-state={connection}>
      <span class="conn-dot" aria-hidden="true" />
      <span class="conn-state">{t(`conn.${connection}`)}</span>
      <span class="conn-age" data-testid="data-age">
        {age === null ? t("conn.nodata") : t("conn.data", { age: ago(lang.value, age) })}
      </span>
    </div>
  );
}

function Clock() {
  const now = state.now.value;
  const zone = state.zoneOfTime.value;
  return (
    <div class="clock" title={`${t("header.clock")} (${zone})`} data-testid="clock">
      <time class="clock-time">{clock(now, zone)}</time>
      <span class="clock-day">{day(lang.value, now, zone, true)}</span>
    </div>
  );
}

function chooseLang(next: Lang): void {
  lang.value = next;
  state.store("lang", next);
}

function chooseTheme(next: state.ThemeChoice): void {
  state.themeChoice.value = next;
  state.store("theme", next);
}

export function Languages() {
  return (
    <Segments
      label={t("header.language")}
      testid="lang"
      class="small"
      value={lang.value}
      onChoose={chooseLang}
      options={LANGS.map(({ id, name, short }) => ({
        id,
        title: name,
        text: (
          <>
            <span aria-hidden="true">{short}</span>
            <span class="visually-hidden" lang={id}>
              {name}
            </span>
          </>
        ),
      }))}
    />
  );
}

export function Themes() {
  return (
    <Segments
      label={t("header.theme")}
      testid="theme"
      class="small"
      value={state.themeChoice.value}
      onChoose={chooseTheme}
      options={THEMES.map(({ id, icon: Icon }) => ({
        id,
        title: t(`theme.${id}`),
        text: (
          <>
            <Icon />
            <span class="visually-hidden">{t(`theme.${id}`)}</span>
          </>
        ),
      }))}
    />
  );
}

function Visitor() {
  const known = session.value;
  if (!known?.asked) return null;
  return (
    <div class="visitor" data-testid="visitor" data-scope={known.scope}>
      <span class="visitor-name" title={t("header.visitor")}>
        {known.name}
      </span>
      {!mayOperate.value && (
        <span class="chip" title={t("header.readonly.hint")} data-testid="readonly">
          {t("header.readonly")}
        </span>
      )}
      {known.cookie && (
        <button type="button" class="button" onClick={() => void signOut().catch(() => undefined)} data-testid="signout">
          {t("header.signout")}
        </button>
      )}
    </div>
  );
}

export function Header() {
  return (
    <header class="top">
      <div class="brand">
        <Mark />
        <h1>
          <span class="wordmark">Qala</span>
          <span class="city">{state.cityName.value}</span>
        </h1>
      </div>
      <Segments
        label={t("domain.switch")}
        testid="domain"
        class="domains"
        value={state.domain.value}
        onChoose={state.chooseDomain}
        options={DOMAINS.map((id) => {
          const Icon = DOMAIN_ICONS[id];
          return {
            id,
            text: (
              <>
                <Icon />
                <span>{domainTitle(id)}</span>
              </>
            ),
          };
        })}
      />
      <div class="top-right">
        <IntakeButton />
        <Connection />
        <Clock />
        <Languages />
        <Themes />
        <Visitor />
      </div>
    </header>
  );
}
