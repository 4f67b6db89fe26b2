/** The way to the sheet about the intake; the sheet itself comes when it is first opened. */
import { signal } from "@preact/signals";
import type { FunctionComponent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import * as state from "../state";
import { Inbox } from "./icons";

const sheet = signal<FunctionComponent | null>(null);

async function load(): Promise<void> {
  sheet.value = (await import("../intake/sheet")).Sheet;
}

/** The focus goes back to what had it when the sheet was opened. */
function Opened() {
  const { current: opener } = useRef(document.activeElement);
  useEffect(() => {
    load().catch((error: unknown) => console.warn("qala: intake:", error));
    return () => (opener instanceof HTMLElement && opener.isConnected ? opener : document.getElementById("intake-open"))?.focus();
  }, []);
  const Sheet = sheet.value;
  return Sheet && <Sheet />;
}

export function Intake() {
  return state.intake.value && <Opened />;
}

export function IntakeButton() {
  return (
    <button type="button" id="intake-open" class="button intake-open" onClick={() => state.showIntake("ledger")} data-testid="intake-open">
      <Inbox />
      {t("intake.title")}
    </button>
  );
}
