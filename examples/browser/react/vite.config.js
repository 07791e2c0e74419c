// The development server passes the API on, so that the page and the API have one origin.
export default { server: { proxy: { "/auth": process.env.SERVER ?? "http://localhost:8000" } } };
