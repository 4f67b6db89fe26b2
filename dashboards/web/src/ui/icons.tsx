/** The page's few icons, drawn with the text's colour. */
import type { ComponentChildren } from "preact";

function Icon({ children, size = 16 }: { children: ComponentChildren; size?: number }) {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.5"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const Mark = () => (
  <svg class="mark" width="26" height="26" viewBox="0 0 32 32" aria-hidden="true">
    <rect class="mark-ground" width="32" height="32" rx="8" />
    <path class="mark-line" d="M7 24V14l4.5-4 4.5 4v10M16 24V9.500L20.5 6 25 9.500V24" />
  </svg>
);

export const DOMAIN_ICONS = {
  traffic: () => (
    <Icon>
      <path d="M5 2 3 14M11 2l2 12M8 3v2M8 7.200v2M8 11.500v2" />
    </Icon>
  ),
  air: () => (
    <Icon>
      <path d="M1.5 6h8a2 2 0 1 0-2-2M1.5 9h11a2 2 0 1 1-2 2M1.5 12h5a1.5 1.5 0 1 1-1.5 1.5" />
    </Icon>
  ),
  energy: () => (
    <Icon>
      <path d="M9 1.5 3.5 9H8l-1 5.500L12.5 7H8z" />
    </Icon>
  ),
};

export const Sun = () => (
  <Icon>
    <circle cx="8" cy="8" r="2.8" />
    <path d="M8 1.500v1.200M8 13.300v1.200M1.5 8h1.200M13.3 8h1.200M3.4 3.400l.8.8M11.8 11.800l.8.8M3.4 12.600l.8-.8M11.8 4.200l.8-.8" />
  </Icon>
);
export const Moon = () => (
  <Icon>
    <path d="M13.5 9.600A5.8 5.8 0 0 1 6.4 2.500a5.8 5.8 0 1 0 7.1 7.100z" />
  </Icon>
);
export const Screen = () => (
  <Icon>
    <rect x="1.8" y="2.5" width="12.4" height="8.5" rx="1.5" />
    <path d="M5.5 13.800h5" />
  </Icon>
);
export const Close = () => (
  <Icon>
    <path d="m4 4 8 8M12 4l-8 8" />
  </Icon>
);
export const Plus = () => (
  <Icon>
    <path d="M8 3v10M3 8h10" />
  </Icon>
);
export const Minus = () => (
  <Icon>
    <path d="M3 8h10" />
  </Icon>
);
export const Fit = () => (
  <Icon>
    <path d="M2.5 6V2.500H6M10 2.500h3.500V6M13.5 10v3.500H10M6 13.500H2.500V10" />
  </Icon>
);
export const Check = () => (
  <Icon size={14}>
    <path d="m3 8.5 3.2 3.200L13 5" />
  </Icon>
);
export const Book = () => (
  <Icon size={14}>
    <path d="M3 3.500A1.5 1.5 0 0 1 4.5 2H13v10.500H4.500A1.5 1.5 0 0 0 3 14zM3 14h10" />
  </Icon>
);
export const Unplugged = () => (
  <Icon>
    <path d="M2 2l12 12M5.5 9.5 4 11a2.1 2.1 0 0 0 3 3l1.5-1.500M10.5 6.5 12 5a2.1 2.1 0 0 0-3-3L7.5 3.5" />
  </Icon>
);
export const Waiting = () => (
  <Icon>
    <circle cx="8" cy="8" r="6" />
    <path d="M8 4.500V8l2.3 1.5" />
  </Icon>
);
export const Inbox = () => (
  <Icon size={14}>
    <path d="M8 1.500v6M5.5 5.500 8 8l2.5-2.500M1.8 9v3.500A1.5 1.5 0 0 0 3.3 14h9.400a1.5 1.5 0 0 0 1.500-1.500V9h-3.700l-1 2H6.500l-1-2z" />
  </Icon>
);
export const Back = () => (
  <Icon size={14}>
    <path d="M13 8H3.500M7.5 3.500 3 8l4.5 4.500" />
  </Icon>
);
export const Quiet = () => (
  <Icon size={22}>
    <circle cx="8" cy="8" r="6.2" />
    <path d="m5.2 8.2 2 2 3.6-4" />
  </Icon>
);

/** Severity by shape as well as by colour: an octagon, a triangle, a circle. */
export function SeverityMark({ severity }: { severity: string }) {
  if (severity === "critical") {
    return (
      <svg class="sev-mark" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
        <path fill="currentColor" d="M5 1h6l4 4v6l-4 4H5l-4-4V5z" />
        <path stroke="var(--surface)" stroke-width="1.8" stroke-linecap="round" d="M8 4.400v4M8 11.300v.1" />
      </svg>
    );
  }
  if (severity === "warning") {
    return (
      <svg class="sev-mark" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
        <path fill="currentColor" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" d="M8 2 15 14H1z" />
        <path stroke="var(--surface)" stroke-width="1.7" stroke-linecap="round" d="M8 6.300v3.500M8 12.100v.1" />
      </svg>
    );
  }
  return (
    <svg class="sev-mark" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
      <circle cx="8" cy="8" r="7" fill="currentColor" />
      <path stroke="var(--surface)" stroke-width="1.8" stroke-linecap="round" d="M8 7.400v4M8 4.700v.1" />
    </svg>
  );
}
