/** How data come in: what was received of whom, what was rejected, and how the parts are doing. Loaded when first opened. */
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import * as state from "../state";
import { Close } from "../ui/icons";
import { Segments } from "../ui/parts";
import { HealthView } from "./health";
import { LedgerView } from "./ledger";
import { RejectedView } from "./rejected";

const VIEWS: readonly state.IntakeView[] = ["ledger", "rejected", "health"];

function View({ view, device }: state.Intake) {
  if (view === "health") return <HealthView />;
  return view === "ledger" ? <LedgerView device={device} /> : <RejectedView key={device} device={device} />;
}

export function Sheet() {
  const dialog = useRef<HTMLDialogElement>(null);
  const shown = state.intake.value;
  useEffect(() => {
    dialog.current?.showModal();
    dialog.current?.querySelector<HTMLElement>("input:checked")?.focus();
  }, []);
  const close = () => void (state.intake.value = null);
  if (!shown) return null;
  return (
    <dialog ref={dialog} class="dialog sheet" onClose={close} aria-labelledby="intake-title" data-testid="intake" data-view={shown.view}>
      <div class="sheet-head">
        <h2 id="intake-title">{t("intake.title")}</h2>
        <Segments
          label={t("intake.view")}
          testid="intake-view"
          value={shown.view}
          onChoose={(view) => state.showIntake(view)}
          options={VIEWS.map((id) => ({ id, text: t(`intake.${id}`) }))}
        />
        <button type="button" class="button bare" onClick={close} aria-label={t("panel.close")} title={t("panel.close")} data-testid="intake-close">
          <Close />
        </button>
      </div>
      <View {...shown} />
    </dialog>
  );
}

/** What stands in a view's place until its data are there. */
export function Waiting({ error }: { error: string }) {
  return (
    <p class={`sheet-note ${error ? "dialog-error" : "dim"}`} role="status">
      {error ? t("intake.failed", { reason: error }) : t("intake.loading")}
    </p>
  );
}
