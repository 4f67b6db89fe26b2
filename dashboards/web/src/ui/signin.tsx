/** What stands in the page's place until the server knows who looks. The token goes to the server and stays nowhere here. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import { enter } from "../load";
import { signIn } from "../session";
import { Languages, Themes } from "./header";
import { Mark } from "./icons";

export function SignIn() {
  const field = useRef<HTMLInputElement>(null);
  const sending = useSignal(false);
  const error = useSignal("");

  useEffect(() => field.current?.focus(), []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const input = field.current;
    if (!input) return;
    sending.value = true;
    error.value = "";
    const failed = await signIn(input.value.trim());
    sending.value = false;
    if (!failed) return void enter();
    const [key, reason] = failed;
    error.value = t(key, { reason });
    input.select();
  };
  return (
    <main class="signin" data-testid="signin">
      <form class="panel" onSubmit={(event) => void submit(event)}>
        <div class="brand">
          <Mark />
          <h1>
            <span class="wordmark">Qala</span>
            <span class="city">{t("app.title")}</span>
          </h1>
        </div>
        <p>{t("signin.intro")}</p>
        <label class="field">
          <span>{t("signin.token")}</span>
          <input
            ref={field}
            type="password"
            name="token"
            required
            maxLength={200}
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            aria-invalid={error.value !== ""}
            aria-describedby="signin-error signin-hint"
            data-testid="signin-token"
          />
        </label>
        <p id="signin-error" class="dialog-error" role="alert" data-testid="signin-error">
          {error.value}
        </p>
        <button type="submit" class="button primary" disabled={sending.value} data-testid="signin-submit">
          {sending.value ? t("signin.sending") : t("signin.submit")}
        </button>
        <p id="signin-hint" class="dim">
          {t("signin.hint")} <code>qala token issue NAME --scope read</code>
        </p>
      </form>
      <div class="signin-choices">
        <Languages />
        <Themes />
      </div>
    </main>
  );
}
