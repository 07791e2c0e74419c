import vue from "@vitejs/plugin-vue";

// The development server passes the API on, so that the page and the API have one origin.
const proxy = { "/auth": process.env.SERVER ?? "http://localhost:8000" };
export default { plugins: [vue()], server: { proxy } };
