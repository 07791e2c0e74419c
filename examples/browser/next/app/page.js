// Rendered on the server, for the user that `middleware.js` has checked.
import { headers } from "next/headers";
import { SignIn, SignOut } from "./session";

export default async function Page() {
  const user = (await headers()).get("x-user");
  return user ? <main><h1>Hello {user}</h1><SignOut /></main> : <main><h1>Who are you?</h1><SignIn /></main>;
}
