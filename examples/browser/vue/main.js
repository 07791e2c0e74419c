// Beside `dutchdoor serve`: npm ci && npm run dev
import { createApp } from "vue";
import Shop from "./Shop.vue";

createApp(Shop).mount("main");
