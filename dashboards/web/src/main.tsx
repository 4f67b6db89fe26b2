import { render } from "preact";
import { t } from "./i18n";
import { announcement, start } from "./load";
import { asked } from "./session";
import { connection } from "./state";
import { AckDialog, Alerts } from "./ui/alerts";
import { Banner } from "./ui/banner";
import { Chart } from "./ui/chart";
import { Details } from "./ui/details";
import { Header } from "./ui/header";
import { Intake } from "./ui/intake";
import { SignIn } from "./ui/signin";
import { Stage } from "./ui/stage";
import { Tiles } from "./ui/tiles";

function App() {
  if (asked.value) return <SignIn />;
  return (
    <div class="app" data-testid="app" data-connection={connection.value}>
      <a class="skip" href="#alerts">
        {t("app.skip")}
      </a>
      <Header />
      <Banner />
      <main class="board">
        <Tiles />
        <Stage />
        <Chart />
        <aside class="side">
          <Details />
          <Alerts />
        </aside>
      </main>
      <AckDialog />
      <Intake />
      <div class="visually-hidden" aria-live="polite" data-testid="announcement">
        {announcement.value}
      </div>
    </div>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
void start();
